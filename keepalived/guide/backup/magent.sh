#!/bin/sh
# The standby's check: the proxy runs where the address is, and nowhere else.
if ip -o address show | grep -q ' 192\.0\.2\.66/'; then
	/usr/bin/magent -u root -n 51200 -l 192.0.2.66 -p 12000 -s 192.0.2.11:11211 -b 192.0.2.12:11211
else
	# -x: the exact name. As a pattern it would match this script.
	pkill -9 -x magent
fi
exit 0
