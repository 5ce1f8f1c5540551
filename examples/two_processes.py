"""The Python side of two_processes.rs: either program provides, and the other finds it and asks.

    pip install vl-messaging==2026.1.11
    python examples/two_processes.py provide       # or ask

They meet at the hub of the machine, which is a Rust router. The folder of its socket is that of VLM_FOLDER, else /tmp.
"""
import asyncio
import os
import sys

from vlmessaging import Directory, Entry, Msg, Router, VLM
from vlmessaging.utils import Missing

HUB = f"ipc://{os.environ.get('VLM_FOLDER', '/tmp')}/hub_1"


async def provide(router):
    async def arrived(msg):
        if msg.subject == "ADD_ONE":
            await conn.send(msg.reply(msg.contents + 1))
        else:
            return [VLM.IGNORE_UNHANDLED_REPLIES, VLM.HANDLE_PING, VLM.HANDLE_SHUTDOWN, VLM.HANDLE_DOES_NOT_UNDERSTAND]

    conn = router.newConnection(arrived)
    entry = Entry(conn.addr, "AddOneAgent", None, [VLM.LOCAL_VNET], None)
    await conn.send(Msg(conn.directoryAddr, VLM.REGISTER_ENTRY, entry), 1000)
    print(f"process {os.getpid()} provides AddOneAgent at {conn.addr}", flush=True)
    await router.hasShutdown.wait()


async def ask(router):
    async def arrived(msg):
        return [VLM.IGNORE_UNHANDLED_REPLIES, VLM.HANDLE_PING]

    conn = router.newConnection(arrived)
    provider = await find(conn, "AddOneAgent")
    # The package often loses the first message on a new connection: what must arrive is sent again.
    for _ in range(10):
        reply = await conn.send(Msg(provider, "ADD_ONE", 41), 500)
        if reply is not Missing:
            print(f"process {os.getpid()} hears from {provider} that 41 + 1 = {reply.contents}", flush=True)
            break
    await conn.send(Msg(provider, VLM.SHUTDOWN))
    await asyncio.sleep(0.1)
    router.shutdown()
    await router.hasShutdown.wait()


async def find(conn, service):
    while True:
        reply = await conn.send(Msg(conn.directoryAddr, VLM.GET_ENTRIES, service), 500)
        if reply is not Missing and reply.contents:
            # A Python directory forgets nobody: who came last is the likeliest to live.
            return reply.contents[-1].addr
        await asyncio.sleep(0.05)


async def main():
    router = Router(mode=VLM.MACHINE_MODE)
    directory = Directory(router, hubs=[HUB])
    await (provide if sys.argv[1:] == ["provide"] else ask)(router)


if __name__ == "__main__":
    asyncio.run(main())
