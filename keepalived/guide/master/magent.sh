#!/bin/sh
# The master's check: starts the proxy where it does not run. A second start does nothing and exits 0.
exec /usr/bin/magent -u root -n 51200 -l 192.0.2.66 -p 12000 -s 192.0.2.11:11211 -b 192.0.2.12:11211
