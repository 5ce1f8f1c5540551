"""A Python agent: ADD_ONE is answered with one more, ECHO with the same, SHOW with the contents as JSON text, EVENTS with the
contents of every EVENT so far. SILENCE is not answered.

What else comes is left to the package's standard answers. Options are those of peer.py, and

    --service NAME --entry-vnet NAME     register the agent in its directory
"""
from peer import *
from vlmessaging import Entry, Msg


async def main():
    parser = options()
    parser.add_argument("--service")
    parser.add_argument("--entry-vnet", action="append", default=[])
    args = parser.parse_args()
    router = await start(args)
    events = []

    async def arrived(msg):
        if msg.isReply:
            return [VLM.IGNORE_UNHANDLED_REPLIES]
        if msg.subject == "ADD_ONE":
            await conn.send(msg.reply(msg.contents + 1))
        elif msg.subject == "ECHO":
            await conn.send(msg.reply(msg.contents))
        elif msg.subject == "SHOW":
            await conn.send(msg.reply(show(msg.contents)))
        elif msg.subject == "EVENT":
            events.append(msg.contents)
        elif msg.subject == "EVENTS":
            await conn.send(msg.reply(events))
        elif msg.subject != "SILENCE":
            return [VLM.HANDLE_PING, VLM.HANDLE_DOES_NOT_UNDERSTAND]

    conn = router.newConnection(arrived)
    if args.service:
        entry = Entry(conn.addr, args.service, None, args.entry_vnet, None)
        await conn.send(Msg(conn.directoryAddr, VLM.REGISTER_ENTRY, entry), 1000)
    net = args.net_listen or None
    say({"addr": [net, conn.addr.mEp, conn.addr.rEp], "endpoints": router._mEps + router._nEps})
    while await hear() is not None:
        pass
    await end(router)


run(main)
