"""What the Python peers share: one router of vl-messaging that keeps quiet and tells how it fares.

A peer prints JSON, a line each: one when it is up, one for each command that it was given, one at the end, which says whether the router's
main loop is still alive (a dead one looks like a slow one from outside). It ends when its standard input does. Whatever the package prints
goes to standard error.

    --mode machine|network      how far the router reaches
    --hub EP, --net-hub EP      hubs to join
    --hub-listen EP             be the hub there
    --net-listen EP             listen on tcp there
    --vnet NAME                 serve that vnet on the network
    --heartbeat MS              when the directory pings whom it knows of; 10,000 if not said
    --number N                  listen at router_N, instead of the process id's
    --stuck-dials N             provoke the package's dial race: it forgets the first N ipc connections that it makes
"""
import argparse
import asyncio
import itertools
import json
import os
import sys
import time

from pynng import TryAgain
from vlmessaging import Directory, Router, VLM, _core
from vlmessaging._utils.sentinels import Missing

OUT = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
_core._PPMsg = lambda *args: None

fate = {"main_loop_alive": True, "main_loop_error": None, "stuck_dials": 0}


def options():
    parser = argparse.ArgumentParser()
    parser.add_argument("--mode", choices=["machine", "network"], default="machine")
    parser.add_argument("--hub", action="append", default=[])
    parser.add_argument("--net-hub", action="append", default=[])
    parser.add_argument("--vnet", action="append", default=[])
    parser.add_argument("--hub-listen", default=Missing)
    parser.add_argument("--net-listen", default=Missing)
    parser.add_argument("--heartbeat", type=int, default=Missing)
    parser.add_argument("--stuck-dials", type=int, default=0)
    parser.add_argument("--number", type=int)
    return parser


def say(line):
    print(json.dumps(line), file=OUT, flush=True)


def show(contents):
    """Contents as text in which every difference shows: of type, of size, of order."""
    return json.dumps(contents, ensure_ascii=False)


async def hear():
    """The next command; None when the test has closed our standard input."""
    line = await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    return json.loads(line) if line else None


def watch_main_loop():
    watched = Router._mainLoop

    async def main_loop(self):
        try:
            await watched(self)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            fate.update(main_loop_alive=False, main_loop_error=repr(error))

    Router._mainLoop = main_loop


def settle_dials():
    """The package asks for a pipe's dialer before pynng has filed it, now and then; here it waits until that is done."""
    connected = _core._NngSocketBundle._onConnect

    def is_filed(pipe):
        for role in ("dialer", "listener"):
            try:
                getattr(pipe, role)
                return True
            except TypeError:
                pass            # it has the other role
            except KeyError:
                return False
        return True

    def on_connect(self, pipe):
        for _ in range(500):
            if is_filed(pipe):
                break
            time.sleep(0.001)
        connected(self, pipe)

    _core._NngSocketBundle._onConnect = on_connect


def settle_hellos():
    """The package does not expect that a new pipe may be busy: a hello that finds it so is an error, after which a router that listens on tcp
    keeps all messages to that endpoint to itself for ever. Here it says the hello again."""
    connected = _core._NngSocketBundle._onOutGoingTcpConnect

    def on_connect(self, pipe):
        for _ in range(500):
            try:
                return connected(self, pipe)
            except TryAgain:
                if f"tcp://{pipe.remote_address}" not in self._msgAccumulatorByEp:
                    raise           # the hello is said: what is lost is a message
                time.sleep(0.001)

    _core._NngSocketBundle._onOutGoingTcpConnect = on_connect


def name_strays():
    """Says for whom a message was that finds nobody here: it ends the main loop, whoever sent it."""
    route = Router._route

    def named(self, msg):
        n, m, r = msg.toAddr
        is_here = (n is None or n in self._nEps) and (m is None or m in self._mEps)
        if is_here and r is not None and r not in self._inboxByREp and msg.subject != VLM.MSG_NOT_DELIVERED:
            print(f"nobody is at {msg.toAddr}: {msg.subject} from {msg.replyAddr}", file=sys.stderr, flush=True)
        route(self, msg)

    Router._route = named


def stick_dials(count):
    """What the race does when it is lost: the new connection is forgotten, nothing is ever said on it."""
    connected = _core._NngSocketBundle._onOutGoingIpcConnect

    def on_connect(self, pipe):
        if fate["stuck_dials"] < count:
            fate["stuck_dials"] += 1
            raise KeyError("the dialer is not filed")
        connected(self, pipe)

    _core._NngSocketBundle._onOutGoingIpcConnect = on_connect


def start(args):
    """A router with its directory, which listens as soon as the caller awaits. The caller makes its connections before: other Python
    directories ping those of an earlier life at the same endpoint, and a ping that finds nobody ends the main loop."""
    watch_main_loop()
    name_strays()
    settle_dials()
    settle_hellos()
    stick_dials(args.stuck_dials)
    if args.number:
        _core._mEpSeed = itertools.count(args.number)
    router = Router(mode=VLM.NETWORK_MODE if args.mode == "network" else VLM.MACHINE_MODE)
    Directory(router, vnets=args.vnet, hubListen=args.hub_listen, hubs=args.hub, netListen=args.net_listen,
              netHubs=args.net_hub, heartbeatEntriesTimeout=args.heartbeat)
    return router


async def listens(router, args):
    """Waits until it listens wherever it shall."""
    wanted = [endpoint for endpoint in (args.hub_listen, args.net_listen) if endpoint]
    while not all(endpoint in router._mEps + router._nEps for endpoint in wanted):
        await asyncio.sleep(0.01)


async def end(router, **counted):
    """The last line, after an orderly end; a router without its main loop never confirms one."""
    router.shutdown()
    try:
        await asyncio.wait_for(router.hasShutdown.wait(), 2 if fate["main_loop_alive"] else 0)
    except asyncio.TimeoutError:
        pass
    say({**fate, **counted})


def run(main):
    asyncio.run(main())
    OUT.flush()
    os._exit(0)
