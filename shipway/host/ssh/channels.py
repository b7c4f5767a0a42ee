"""Session channels of one SSH connection: never more at once than its sshd allows, each with its answer."""

from __future__ import annotations

import asyncio
import contextlib

import asyncssh

# sshd_config(5): MaxSessions is 10 per connection. sshd frees closed sessions only after all messages that it read at
# once: when our loop was busy, as many closes as sessions can come together with as many new requests, and both count.
# Five can never meet a limit of ten. (With 8, sshd 9.2p1 refused 22 of 400 in such moments.)
AT_ONCE = 5
PAUSES = (0.1, 0.2, 0.4, 0.8, 1.6)  # seconds between tries while sshd refuses although nothing of ours is open
# What RFC 4254 (5.1) has for a channel that was not opened: not permitted, not possible, unknown, too much asked.
_NOT_OPENED = (
    asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED,
    asyncssh.OPEN_CONNECT_FAILED,
    asyncssh.OPEN_UNKNOWN_CHANNEL_TYPE,
    asyncssh.OPEN_RESOURCE_SHORTAGE,
)


class ChannelRefused(Exception):
    """sshd opens no session on this connection although none of ours is open; `ever` tells whether it once did."""

    def __init__(self, reason: str, *, ever: bool) -> None:
        super().__init__(reason)
        self.ever = ever


class Answer(asyncssh.SSHClientSession[bytes]):
    """What comes back on one channel: output, error, and how the program ended.

    The input goes out in the turn of the event loop in which asyncssh sends the request to run the command, right
    behind it: waiting for the reply to that request first would cost a round trip. sshd takes a channel's messages in
    order, so the program is there when its input comes; before the request sshd would drop it.
    """

    def __init__(self, feed: bytes, *, end: bool) -> None:
        self.out, self.err = bytearray(), bytearray()
        self.status: int | None = None
        self.signal = ""
        self.ended = asyncio.Event()  # a future would count as done once the wait for it ran out of time
        self._feed, self._end = feed, end
        self._channel: asyncssh.SSHClientChannel[bytes] | None = None

    def connection_made(self, chan: asyncssh.SSHClientChannel[bytes]) -> None:
        """Keep the channel, and send the input once the request is out."""
        self._channel = chan
        asyncio.get_running_loop().call_soon(self._send, chan)

    def _send(self, chan: asyncssh.SSHClientChannel[bytes]) -> None:
        # A program that ended before it took its input is no broken connection: its answer tells why.
        with contextlib.suppress(OSError):
            chan.write(self._feed)
            if self._end:
                chan.write_eof()

    def data_received(self, data: bytes, datatype: asyncssh.DataType) -> None:
        """Keep what was printed."""
        (self.err if datatype == asyncssh.EXTENDED_DATA_STDERR else self.out).extend(data)

    def exit_status_received(self, status: int) -> None:
        """Keep the exit status."""
        self.status = status

    def exit_signal_received(self, signal: str, core_dumped: bool, msg: str, lang: str) -> None:  # noqa: FBT001 - asyncssh's
        """Keep the signal that ended the program."""
        del core_dumped, msg, lang
        self.signal = signal

    def connection_lost(self, exc: Exception | None) -> None:
        """Say that nothing more comes."""
        del exc  # without an exit status or a signal the connection broke, whatever asyncssh names as its reason
        self.ended.set()

    def leave(self) -> bool:
        """Close the channel where it still is open: a command that ran out of its time holds no place here.

        Returns whether the channel was ever open.
        """
        if self._channel is not None and not self.ended.is_set():
            self._channel.abort()
        return self._channel is not None


class Channels:
    """The session channels of one connection: a queue in front of them that follows what its sshd allows."""

    def __init__(self, connection: asyncssh.SSHClientConnection) -> None:
        self.connection = connection
        self._limit = AT_ONCE
        self._open = 0
        self._ever = False
        self._change = asyncio.Condition()

    async def run(self, command: str, feed: bytes, *, end: bool, seconds: float) -> Answer:
        """Run a command with this input (and the end of it, with `end`); return what was answered in so many seconds.

        The time in the queue does not count: whoever is ahead has a limit of its own.
        Raises TimeoutError, ChannelRefused, and what asyncssh and the network raise when the connection breaks.
        """
        pauses = iter(PAUSES)
        while True:
            async with self._change:
                await self._change.wait_for(lambda: self._open < self._limit)
                self._open += 1
            others = self._open - 1
            try:
                answer = await self._answered(command, feed, end=end, seconds=seconds)
            except asyncssh.ChannelOpenError as error:
                if error.code not in _NOT_OPENED or self.connection.is_closed():
                    raise
                others = min(others, self._open - 1)
                self._limit = max(1, others)
                if others:
                    continue  # once one of them ends there is a place
                pause = next(pauses, None)
                if pause is None:
                    raise ChannelRefused(error.reason, ever=self._ever) from error
                await asyncio.sleep(pause)
            else:
                self._limit = min(AT_ONCE, self._limit + 1)
                return answer
            finally:
                async with self._change:
                    self._open -= 1
                    self._change.notify_all()

    async def _answered(self, command: str, feed: bytes, *, end: bool, seconds: float) -> Answer:
        answer = Answer(feed, end=end)
        try:
            async with asyncio.timeout(seconds):
                await self.connection.create_session(lambda: answer, command, encoding=None)
                await answer.ended.wait()
        finally:
            self._ever |= answer.leave()
        return answer
