"""A Python client that does what it is told, a JSON command a line, and answers each with a line. Options are those of peer.py.

    {"do": "find", "service": "..", "within": ms}                       -> {"entries": [..]}
    {"do": "meet", "to": [n, m, r], "within": ms}                       -> {"tries": n}, 0 if nobody answered
    {"do": "ask", "to": .., "subject": "..", "contents": .., "within": ms, "also": [subjects], "times": n}
                                                                        -> {"replies": [{"subject": .., "contents": ..} or null, ..]}
    {"do": "echo", "to": .., "json": "the contents as JSON text"}       -> {"sent": "..", "came": ".."}

`meet` sends PING until the first answer: what the package sends while a connection is being made it usually loses. `ask` adds the number of
the round to contents that are an int when there are several.
"""
from peer import *
from vlmessaging import Addr, Entry, Msg


async def main():
    router = await start(options().parse_args())
    loop = asyncio.get_running_loop()

    async def arrived(msg):
        return [VLM.HANDLE_PING, VLM.HANDLE_DOES_NOT_UNDERSTAND]

    conn = router.newConnection(arrived)

    async def find(service, within):
        until = loop.time() + within / 1000
        while loop.time() < until:
            reply = await conn.send(Msg(conn.directoryAddr, VLM.GET_ENTRIES, service), 500)
            if reply is not Missing and reply.contents:
                return {"entries": [[list(entry.addr), entry.service, entry.params] for entry in reply.contents]}
            await asyncio.sleep(0.02)
        return {"entries": []}

    async def meet(to, within):
        until, tries = loop.time() + within / 1000, 0
        while loop.time() < until:
            tries += 1
            if await conn.send(Msg(Addr.fromSeq(to), VLM.PING), 300) is not Missing:
                return {"tries": tries}
        return {"tries": 0}

    async def ask(to, subject, contents=None, within=2000, also=(), times=1):
        replies = []
        for n in range(times):
            said = contents + n if times > 1 else contents
            reply = await conn.send(Msg(Addr.fromSeq(to), subject, said), within, list(also))
            replies.append(None if reply is Missing else {"subject": reply.subject, "contents": reply.contents})
        return {"replies": replies}

    async def echo(to, **contents):
        sent = json.loads(contents["json"])
        reply = await conn.send(Msg(Addr.fromSeq(to), "ECHO", sent), 2000)
        return {"sent": show(sent), "came": "nothing" if reply is Missing else show(reply.contents)}

    commands = {"find": find, "meet": meet, "ask": ask, "echo": echo}
    say({"addr": list(conn.addr), "endpoints": router._mEps + router._nEps})
    while (command := await hear()) is not None:
        say(await commands[command.pop("do")](**command))
    await end(router)


run(main)
