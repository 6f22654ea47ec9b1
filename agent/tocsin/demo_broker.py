"""The demo's MQTT broker: amqtt on 127.0.0.1, in a process of its own. For a plant use mosquitto.

`python -m tocsin.demo_broker PORT`; runs until its standard input closes, so that it never outlives the demo.
"""

import asyncio
import logging
import sys


async def serve(port: int) -> None:
    """Runs until standard input closes."""
    from amqtt.broker import Broker  # noqa: PLC0415 - extra `demo`

    settings = {
        "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}"}},
        "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
    }
    broker = Broker(settings)
    await broker.start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    try:
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    finally:
        await broker.shutdown()


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR)
    asyncio.run(serve(int(sys.argv[1])))
