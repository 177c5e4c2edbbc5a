"""A driver for a request and response protocol: Modbus over TCP reads a meter's registers, one call for each answer.

How long a response is stands in its first nine bytes: Modbus Messaging on TCP/IP, section 3.1, and the Modbus
Application Protocol, section 6.3. `exchange` sends the request and receives these nine.

Prints:
  voltages: 230 231 229
  a register that is not there: exception 2
  no answer: True
  voltages: 230 231 229
"""

import struct

import trio

from trio_connect import DeadlineExceeded, Endpoint, IncompleteRead, TcpStream, now, tcp_connect, tcp_listen

READ_HOLDING_REGISTERS = 3
ILLEGAL_DATA_ADDRESS = 2
IS_EXCEPTION = 0x80
HEADER = struct.Struct("!HHHBBB")  # transaction, protocol 0, bytes that follow, unit, function, bytes or exception
REGISTERS = {0: 230, 1: 231, 2: 229}
SLOW = 1000  # this meter never answers for it


class ModbusError(Exception):
    """The meter refused; the connection is as good as before."""


class Meter:
    """One connection. Whoever loses patience with it connects anew: a late answer would be taken for the next one."""

    def __init__(self, stream: TcpStream) -> None:
        self.stream = stream
        self.transaction = 0

    async def read(self, first: int, count: int, deadline: int) -> list[int]:
        """Return so many registers."""
        self.transaction = self.transaction + 1 & 0xFFFF
        request = struct.pack("!HHHBBHH", self.transaction, 0, 6, 1, READ_HOLDING_REGISTERS, first, count)
        head = HEADER.unpack(await self.stream.exchange(request, HEADER.size, deadline))
        transaction, _, _, _, function, size = head
        if transaction != self.transaction:
            raise ModbusError("an answer to something else")
        if function & IS_EXCEPTION:
            raise ModbusError(f"exception {size}")
        return list(struct.unpack(f"!{size // 2}H", await self.stream.receive_exactly(size, deadline)))


async def serve(stream: TcpStream) -> None:
    """Answer as a meter does."""
    async with stream:
        try:
            while True:
                request = struct.unpack("!HHHBBHH", await stream.receive_exactly(12))
                transaction, _, _, unit, function, first, count = request
                wanted = range(first, first + count)
                if first == SLOW:
                    await trio.sleep_forever()
                elif all(number in REGISTERS for number in wanted):
                    values = struct.pack(f"!{count}H", *(REGISTERS[number] for number in wanted))
                    head = HEADER.pack(transaction, 0, 3 + len(values), unit, function, len(values))
                    await stream.send_all([head, values])
                else:
                    refusal = HEADER.pack(transaction, 0, 3, unit, function | IS_EXCEPTION, ILLEGAL_DATA_ADDRESS)
                    await stream.send_all(refusal)
        except IncompleteRead:
            pass  # the client has gone


async def show_voltages(meter: Meter) -> None:
    """Print what the meter measures."""
    print("voltages:", *await meter.read(0, 3, now() + 2000))


async def main() -> None:
    """Run a meter, and read it."""
    async with trio.open_nursery() as nursery:
        listener = await tcp_listen(("127.0.0.1", 0))
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        address: Endpoint = listener.endpoint
        async with await tcp_connect(address, now() + 2000) as stream:
            meter = Meter(stream)
            await show_voltages(meter)
            try:
                await meter.read(40, 1, now() + 2000)
            except ModbusError as error:
                print("a register that is not there:", error)
            try:
                await meter.read(SLOW, 1, now() + 50)
            except DeadlineExceeded as error:
                print("no answer:", "receive from" in str(error))
        async with await tcp_connect(address, now() + 2000) as stream:
            await show_voltages(Meter(stream))
        nursery.cancel_scope.cancel()


trio.run(main)
