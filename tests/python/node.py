"""A Python router with an agent that answers, and a connection that does what the test says. Options are those of peer.py, and

    --service NAME --entry-vnet NAME     register the agent in its directory

The agent answers ADD_ONE with one more, ECHO with the same, SHOW with the contents as JSON text, EVENTS with the contents of every EVENT so
far, COUNT with how many ADD_ONE it has answered. SILENCE is not answered. The rest is left to the package's standard answers.

Commands are JSON, a line each, and so are the answers:

    {"do": "find", "service": "..", "within": ms}                       -> {"entries": [..]}
    {"do": "register", "service": "..", "vnets": [..], "to": directory} -> {"reply": [subject, contents]}; so "unregister"
    {"do": "known"}                                                     -> {"entries": [..]}
    {"do": "meet", "to": [n, m, r], "within": ms}                       -> {"tries": n}, 0 if nobody answered
    {"do": "ask", "to": .., "subject": "..", "contents": .., "within": ms, "also": [subjects], "times": n}
                                                                        -> {"replies": [{"subject": .., "contents": ..} or null, ..]}
    {"do": "call", "to": .., "times": n, "within": ms, "pause": ms, "give_up": lost in a row}
                                                                        -> {"sent": n, "answered": n, "wrong": n, "lost": n, "failures": {}}
    {"do": "send", "to": .., "subject": "..", "times": n, "pause": ms}  -> {"sent": n}
    {"do": "echo", "to": .., "json": "the contents as JSON text"}       -> {"sent": "..", "came": ".."}
    {"do": "heard"}                                                     -> {"unexpected": [[subject, contents, whether it is a reply], ..]}
    {"do": "fate"}                                                      -> {"main_loop_alive": .., ..}

`meet` sends PING until the first answer: what the package sends while a connection is being made it usually loses. `ask` adds the number of
the round to contents that are an int when there are several; `call` asks ADD_ONE with the number of the round.
"""
from peer import *
from vlmessaging import Addr, Entry, Msg


async def main():
    parser = options()
    parser.add_argument("--service")
    parser.add_argument("--entry-vnet", action="append", default=[])
    args = parser.parse_args()
    router = start(args)
    loop = asyncio.get_running_loop()
    events, strays, counts = [], [], {"add_one": 0}

    async def arrived(msg):
        if msg.isReply:
            return [VLM.IGNORE_UNHANDLED_REPLIES]
        if msg.subject == "ADD_ONE":
            counts["add_one"] += 1
            await agent.send(msg.reply(msg.contents + 1))
        elif msg.subject == "ECHO":
            await agent.send(msg.reply(msg.contents))
        elif msg.subject == "SHOW":
            await agent.send(msg.reply(show(msg.contents)))
        elif msg.subject == "EVENT":
            events.append(msg.contents)
        elif msg.subject == "EVENTS":
            await agent.send(msg.reply(events))
        elif msg.subject == "COUNT":
            await agent.send(msg.reply(counts["add_one"]))
        elif msg.subject != "SILENCE":
            return [VLM.HANDLE_PING, VLM.HANDLE_DOES_NOT_UNDERSTAND]

    async def unexpected(msg):
        strays.append([msg.subject, msg.contents, msg.isReply])
        return [VLM.HANDLE_PING, VLM.HANDLE_DOES_NOT_UNDERSTAND]

    agent, conn = router.newConnection(arrived), router.newConnection(unexpected)
    await listens(router, args)
    if args.service:
        entry = Entry(agent.addr, args.service, None, args.entry_vnet, None)
        await agent.send(Msg(agent.directoryAddr, VLM.REGISTER_ENTRY, entry), 1000)

    def told(entries):
        return {"entries": [[list(entry.addr), entry.service, entry.params] for entry in entries]}

    async def register(service, vnets, subject=VLM.REGISTER_ENTRY, to=None):
        directory = Addr.fromSeq(to) if to else agent.directoryAddr
        entry = Entry(agent.addr, service, None, vnets, None)
        reply = await agent.send(Msg(directory, subject, entry), 1000, [VLM.DOES_NOT_UNDERSTAND])
        return {"reply": None if reply is Missing else [reply.subject, reply.contents]}

    async def unregister(service, vnets, to=None):
        return await register(service, vnets, VLM.UNREGISTER_ENTRY, to)

    async def find(service, within):
        until = loop.time() + within / 1000
        while loop.time() < until:
            reply = await conn.send(Msg(conn.directoryAddr, VLM.GET_ENTRIES, service), 500)
            if reply is not Missing and reply.contents:
                return told(reply.contents)
            await asyncio.sleep(0.02)
        return told([])

    async def known():
        return told((await conn.send(Msg(conn.directoryAddr, VLM.GET_ENTRIES), 500)).contents)

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

    async def call(to, times, within=2000, pause=0, give_up=None):
        ended = {"sent": 0, "answered": 0, "wrong": 0, "lost": 0, "failures": {}}
        in_a_row = 0
        for n in range(times):
            if in_a_row == give_up:
                break
            reply = await conn.send(Msg(Addr.fromSeq(to), "ADD_ONE", n), within)
            ended["sent"] += 1
            in_a_row = in_a_row + 1 if reply is Missing else 0
            ended["lost" if reply is Missing else "answered" if reply.contents == n + 1 else "wrong"] += 1
            await asyncio.sleep(pause / 1000)
        return ended

    async def send(to, subject, times, pause):
        for n in range(times):
            await conn.send(Msg(Addr.fromSeq(to), subject, n))
            await asyncio.sleep(pause / 1000)
        return {"sent": times}

    async def echo(to, **contents):
        sent = json.loads(contents["json"])
        reply = await conn.send(Msg(Addr.fromSeq(to), "ECHO", sent), 2000)
        return {"sent": show(sent), "came": "nothing" if reply is Missing else show(reply.contents)}

    async def heard():
        heard = {"unexpected": list(strays)}
        strays.clear()
        return heard

    async def tell_fate():
        return fate

    commands = {"register": register, "unregister": unregister, "find": find, "known": known, "meet": meet, "ask": ask, "call": call, "send": send, "echo": echo, "heard": heard, "fate": tell_fate}
    net = args.net_listen or None
    say({"addr": [net, agent.addr.mEp, agent.addr.rEp], "endpoints": router._mEps + router._nEps})
    while (command := await hear()) is not None:
        say(await commands[command.pop("do")](**command))
    await end(router)


run(main)
