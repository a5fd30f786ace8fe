"""What all scripts of this folder share: an ordinary life, then the same round while a server dies and comes back.

usage: SCRIPT PORT SECONDS [PROTOCOL]; the last line of the output is for tests/clients/mod.rs.
"""
import sys
import time

PORT = int(sys.argv[1])
SECONDS = float(sys.argv[2])
PROTOCOL = sys.argv[3] if len(sys.argv) > 3 else ""


def same(got, wanted, what):
    if got != wanted:
        raise AssertionError(f"{what}: {got!r} instead of {wanted!r}")


def run(life, one_round):
    life("first")
    print("looping", flush=True)
    rounds = errors = wrong = 0
    first = ""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        rounds += 1
        try:
            one_round(rounds)
        except AssertionError as error:
            wrong += 1
            first = first or f"round {rounds}: {error}"
        except Exception as error:
            errors += 1
            first = first or f"round {rounds}: {type(error).__name__}: {error}"
    life("last")
    print(f"rounds={rounds} errors={errors} wrong={wrong} first={first}", flush=True)
