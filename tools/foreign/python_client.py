#!/usr/bin/env python3
"""LiveKit's Python client (native libwebrtc), as a client Stampede did not write.

    python_client.py subscribe --room R [--seconds 8] [--identity I] [--expect video,audio]
                               [--samples yes] [--data yes] [--rpc yes]
    python_client.py publish   --room R [--seconds 8] [--identity I] [--expect video,audio]
                               [--light yes] [--dtx yes] [--screen yes] [--dynacast yes]

LIVEKIT_URL, LIVEKIT_API_KEY and LIVEKIT_API_SECRET say where and as whom. Prints one JSON line;
exit code 1 and a reason on stderr when a kind named by --expect was not decoded (or not sent), 2
for bad arguments. A publisher says `published` on stderr once it sends, a subscriber `watching`
once all it expects comes; SIGINT ends both early, with their figures. With --samples a subscriber
also hands out its figures of every 200 ms, with the time of day. With --data it counts the data
messages that come, and sends messages, a text stream and a byte stream of its own; frames of data
tracks are counted always. With --rpc it answers `stampede.echo` with what it is called with, and
calls everybody three times. Packages: requirements.txt.

--light makes the camera's picture small, for machines with few cores; --dtx lets the microphone
pause in silence; --screen adds a screen share; --dynacast pauses layers that nobody watches. What a
publisher does then, it reads line by line from stdin, and says on stderr when it is done: `mute`
(`muted`), `unmute` (`unmuted`), `quiet` (`quiet`: silence comes from the microphone), `still`
(`still`: the screen share sends no more pictures), `unpublish` (`unpublished`: all tracks).
"""

import argparse
import asyncio
import datetime
import importlib.metadata
import json
import logging
import math
import os
import secrets
import signal
import sys
import time

import numpy
from google.protobuf.json_format import MessageToDict
from livekit import api, rtc

CONNECT_SECONDS_MAX = 30
CLEANUP_SECONDS_MAX = 10
SAMPLE_SECONDS = 0.2
DATA_MESSAGES = 10
CALL_BYTES = (100, 100, 20_000)
# Width, height and frames a second.
CAMERA, CAMERA_LIGHT, SCREEN = (1280, 720, 20), (640, 360, 15), (640, 360, 10)
BITRATE_MAX, BITRATE_LIGHT_MAX = 1_700_000, 500_000
AUDIO_RATE, AUDIO_FRAME_MS, TONE_HZ = 48_000, 10, 440
KINDS = {rtc.TrackKind.KIND_VIDEO: "video", rtc.TrackKind.KIND_AUDIO: "audio"}


class Failed(Exception):
    """The client ran and what was expected did not happen."""


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("mode", choices=["subscribe", "publish"])
    parser.add_argument("--room", required=True)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--identity")
    parser.add_argument("--expect", default="video", help="video, audio, or both with a comma")
    for flag in ("--samples", "--data", "--rpc", "--light", "--dtx", "--screen", "--dynacast"):
        parser.add_argument(flag, choices=["yes", "no"], default="no")
    options = parser.parse_args()
    options.expect = [kind for kind in options.expect.split(",") if kind]
    if unknown := set(options.expect) - set(KINDS.values()):
        parser.error(f"--expect takes video and audio, not {', '.join(sorted(unknown))}")
    if options.seconds <= 0:
        parser.error("--seconds must be above 0")
    for name in ("LIVEKIT_URL", "LIVEKIT_API_KEY", "LIVEKIT_API_SECRET"):
        if not os.environ.get(name):
            parser.error(f"{name} is not set")
    if options.identity is None:
        options.identity = f"python-{options.mode}-{secrets.token_hex(4)}"
    return options


def access_token(options):
    grants = api.VideoGrants(
        room_join=True,
        room=options.room,
        can_publish=options.mode == "publish",
        can_subscribe=options.mode == "subscribe",
        can_publish_data="yes" in (options.data, options.rpc),
    )
    return (
        api.AccessToken(os.environ["LIVEKIT_API_KEY"], os.environ["LIVEKIT_API_SECRET"])
        .with_identity(options.identity)
        .with_grants(grants)
        .with_ttl(datetime.timedelta(hours=1))
        .to_jwt()
    )


class Redacting(logging.Formatter):
    """The server quotes a refused token in full, and the library logs what the server says."""

    def __init__(self, token):
        super().__init__("%(name)s: %(message)s")
        self.token = token

    def format(self, record):
        return super().format(record).replace(self.token, "[token]")


def rtp_rows(stats, wanted):
    """The inbound_rtp or outbound_rtp entries of a stats list, flattened, zeros included."""
    rows = []
    for stat in stats:
        if stat.WhichOneof("stats") != wanted:
            continue
        row = {}
        for part in getattr(stat, wanted).ListFields():
            row.update(MessageToDict(part[1]))
        rows.append(row)
    return rows


def total(rows, key):
    return sum(float(row.get(key, 0)) for row in rows)


def count(rows, key):
    return int(total(rows, key))


def most(rows, key):
    return max((float(row.get(key, 0)) for row in rows), default=0.0)


class Subscriber:
    """Counts what comes out of the decoders, and asks libwebrtc for its own figures."""

    def __init__(self, room):
        self.room = room
        self.tracks = []
        self.tasks = []
        self.arrived = asyncio.Event()
        room.on("track_subscribed", self.on_track)
        self.data = {"reliable": 0, "lossy": 0, "bytes": 0, "sent": 0, "frames": 0, "frame_bytes": 0}
        self.rpc = {"asked": 0, "called": 0, "answered": 0, "error": None}
        room.on("data_received", self.on_data)
        room.on("data_track_published", self.on_data_track)

    def on_data(self, packet):
        lossy = packet.kind == rtc.DataPacketKind.KIND_LOSSY
        self.data["lossy" if lossy else "reliable"] += 1
        self.data["bytes"] += len(packet.data)

    def on_data_track(self, track):
        self.tasks.append(asyncio.create_task(self.consume_frames(track)))

    async def consume_frames(self, track):
        async for frame in track.subscribe():
            self.data["frames"] += 1
            self.data["frame_bytes"] += len(frame.payload)

    def answer_calls(self):
        def echo(call):
            self.rpc["asked"] += 1
            return call.payload

        self.room.local_participant.register_rpc_method("stampede.echo", echo)

    async def call_others(self):
        for size in CALL_BYTES:
            for identity in list(self.room.remote_participants):
                payload = "é" * (size // 2)
                self.rpc["called"] += 1
                try:
                    answer = await self.room.local_participant.perform_rpc(
                        destination_identity=identity, method="stampede.echo", payload=payload
                    )
                    self.rpc["answered"] += answer == payload
                except rtc.RpcError as error:
                    self.rpc["error"] = f"{identity}: {error.code} {error.message}"

    async def send_data(self):
        local = self.room.local_participant
        for number in range(DATA_MESSAGES):
            for reliable in (True, False):
                await local.publish_data(f"message {number}", reliable=reliable, topic="foreign")
                self.data["sent"] += 1
            await asyncio.sleep(0.05)
        await local.send_text("a text. " * 5_000, topic="foreign")
        writer = await local.stream_bytes("bytes", topic="foreign")
        await writer.write(bytes(40_000))
        await writer.aclose()

    def on_track(self, track, publication, participant):
        entry = {
            "track": track,
            "kind": KINDS[track.kind],
            "sid": publication.sid,
            "identity": participant.identity,
            "frames": 0,
            "width": 0,
            "height": 0,
            "samples": 0,
            "peak": 0,
        }
        self.tracks.append(entry)
        consume = self.consume_video if entry["kind"] == "video" else self.consume_audio
        self.tasks.append(asyncio.create_task(consume(entry)))
        self.arrived.set()

    async def consume_video(self, entry):
        async for event in rtc.VideoStream(entry["track"]):
            entry["frames"] += 1
            entry["width"], entry["height"] = event.frame.width, event.frame.height

    async def consume_audio(self, entry):
        async for event in rtc.AudioStream(entry["track"]):
            entry["frames"] += 1
            entry["samples"] += event.frame.samples_per_channel
            samples = numpy.frombuffer(event.frame.data, dtype=numpy.int16)
            entry["peak"] = max(entry["peak"], int(numpy.abs(samples.astype(int)).max(initial=0)))

    async def wait_for(self, kinds):
        """Returns when a track of every kind is there, or the time for that is over."""
        deadline = time.monotonic() + CONNECT_SECONDS_MAX
        while not set(kinds) <= {entry["kind"] for entry in self.tracks}:
            left = deadline - time.monotonic()
            self.arrived.clear()
            try:
                await asyncio.wait_for(self.arrived.wait(), left)
            except asyncio.TimeoutError:
                return

    async def run(self, options):
        if options.rpc == "yes":
            self.answer_calls()
        await self.wait_for(options.expect)
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop.set)
        print("watching", file=sys.stderr, flush=True)
        samples = []
        half = {}
        if options.data == "yes":
            await self.send_data()
        if options.rpc == "yes":
            await self.call_others()
        started = time.monotonic()
        while not stop.is_set() and time.monotonic() < started + options.seconds:
            if not half and time.monotonic() >= started + options.seconds / 2:
                half = {entry["sid"]: entry["frames"] for entry in self.tracks}
            if options.samples == "yes":
                rows = await self.rows({})
                samples.append({"at_ms": time.time() * 1000} | self.summary(rows))
            try:
                await asyncio.wait_for(stop.wait(), SAMPLE_SECONDS)
            except asyncio.TimeoutError:
                pass
        rows = await self.rows(half)
        for task in self.tasks:
            task.cancel()
        return self.summary(rows) | {"samples": samples, "data": self.data, "rpc": self.rpc}, rows

    async def rows(self, half):
        rows = []
        for entry in self.tracks:
            stats = rtp_rows(await entry["track"].get_stats(), "inbound_rtp")
            own = {key: value for key, value in entry.items() if key != "track"}
            rows.append(own | {"frames_half": half.get(entry["sid"], 0), "stats": stats})
        return rows

    @staticmethod
    def summary(rows):
        video = [row for row in rows if row["kind"] == "video"]
        audio = [row for row in rows if row["kind"] == "audio"]
        video_stats = [stat for row in video for stat in row["stats"]]
        audio_stats = [stat for row in audio for stat in row["stats"]]

        def packets(stats):
            keys = ("packetsReceived", "packetsLost", "bytesReceived", "nackCount")
            keys += ("retransmittedPacketsReceived",)
            return {key: count(stats, key) for key in keys} | {"jitter": most(stats, "jitter")}

        return {
            "video": packets(video_stats)
            | {
                "tracks": len(video),
                "framesDecoded": sum(row["frames"] for row in video),
                "framesDecodedHalf": sum(row["frames_half"] for row in video),
                "framesReceived": count(video_stats, "framesReceived"),
                "framesDropped": count(video_stats, "framesDropped"),
                "keyFramesDecoded": count(video_stats, "keyFramesDecoded"),
                "freezeCount": count(video_stats, "freezeCount"),
                "pliCount": count(video_stats, "pliCount"),
                "width": max((row["width"] for row in video), default=0),
                "height": max((row["height"] for row in video), default=0),
            },
            "audio": packets(audio_stats)
            | {
                "tracks": len(audio),
                "framesDecoded": sum(row["frames"] for row in audio),
                "totalSamplesReceived": sum(row["samples"] for row in audio),
                "concealedSamples": count(audio_stats, "concealedSamples"),
                "peak": max((row["peak"] for row in audio), default=0),
            },
        }


class Publisher:
    """Publishes a moving picture (simulcast VP8), a tone, and a screen share if it is asked to."""

    def __init__(self, room):
        self.room = room
        self.captured = {"video": 0, "audio": 0, "screen": 0}
        self.tracks = {}
        self.quiet = False
        self.still = False
        self.mutes = 0
        self.rows = None

    @staticmethod
    def pictures(width, height, per_second):
        """One second of I420 pictures: a bar moving over a slope, so that every frame differs."""
        slope = numpy.tile((numpy.arange(width) * 200 // width).astype(numpy.uint8), (height, 1))
        chroma = numpy.full(width * height // 2, 128, dtype=numpy.uint8).tobytes()
        for index in range(per_second):
            luma = slope.copy()
            left = index * width // per_second
            luma[:, left : left + width // 10] = 235
            data = luma.tobytes() + chroma
            yield rtc.VideoFrame(width, height, rtc.VideoBufferType.I420, data)

    async def send_video(self, name, source, size):
        pictures = list(self.pictures(*size))
        started = time.monotonic()
        while name != "screen" or not self.still:
            source.capture_frame(pictures[self.captured[name] % len(pictures)])
            self.captured[name] += 1
            due = started + self.captured[name] / size[2]
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        await asyncio.Event().wait()

    async def send_audio(self, source):
        samples = AUDIO_RATE * AUDIO_FRAME_MS // 1000
        while True:
            first = self.captured["audio"] * samples
            phase = (first + numpy.arange(samples)) * (2 * math.pi * TONE_HZ / AUDIO_RATE)
            tone = (numpy.sin(phase) * (0 if self.quiet else 12_000)).astype(numpy.int16)
            await source.capture_frame(rtc.AudioFrame(tone.tobytes(), AUDIO_RATE, 1, samples))
            self.captured["audio"] += 1

    async def publish(self, options):
        """Publishes what is asked for, and gives back what sends it."""
        size = CAMERA_LIGHT if options.light == "yes" else CAMERA
        bitrate = BITRATE_LIGHT_MAX if options.light == "yes" else BITRATE_MAX
        picture, tone = rtc.VideoSource(*size[:2]), rtc.AudioSource(AUDIO_RATE, 1)
        self.tracks["video"] = rtc.LocalVideoTrack.create_video_track("picture", picture)
        self.tracks["audio"] = rtc.LocalAudioTrack.create_audio_track("tone", tone)
        camera = rtc.TrackPublishOptions(
            source=rtc.TrackSource.SOURCE_CAMERA,
            simulcast=True,
            video_codec=rtc.VideoCodec.VP8,
            video_encoding=rtc.VideoEncoding(max_bitrate=bitrate, max_framerate=size[2]),
        )
        microphone = rtc.TrackPublishOptions(
            source=rtc.TrackSource.SOURCE_MICROPHONE, red=True, dtx=options.dtx == "yes"
        )
        local = self.room.local_participant
        await local.publish_track(self.tracks["video"], camera)
        await local.publish_track(self.tracks["audio"], microphone)
        senders = [self.send_video("video", picture, size), self.send_audio(tone)]
        if options.screen == "yes":
            desk = rtc.VideoSource(*SCREEN[:2], is_screencast=True)
            self.tracks["screen"] = rtc.LocalVideoTrack.create_video_track("desk", desk)
            screen = rtc.TrackPublishOptions(
                source=rtc.TrackSource.SOURCE_SCREENSHARE,
                simulcast=False,
                video_codec=rtc.VideoCodec.VP8,
            )
            await local.publish_track(self.tracks["screen"], screen)
            senders.append(self.send_video("screen", desk, SCREEN))
        return senders

    async def obey(self, command):
        """Does what a line of stdin says; sources go on as a camera would."""
        if command in ("mute", "unmute"):
            for kind in ("video", "audio"):
                getattr(self.tracks[kind], command)()
            self.mutes += command == "mute"
            said = f"{command}d"
        elif command == "unpublish":
            self.rows = await self.read()
            for track in self.tracks.values():
                await self.room.local_participant.unpublish_track(track.sid)
            said = "unpublished"
        elif command in ("quiet", "still"):
            setattr(self, command, True)
            said = command
        else:
            raise Failed(f"unknown command {command!r}")
        print(said, file=sys.stderr, flush=True)

    async def obey_all(self):
        """Obeys stdin until it ends, and then waits for nothing."""
        lines = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
        while line := await lines.readline():
            await self.obey(line.decode().strip())
        await asyncio.Event().wait()

    async def read(self):
        rows = []
        for name, track in self.tracks.items():
            stats = rtp_rows(await track.get_stats(), "outbound_rtp")
            rows.append({"kind": name, "frames": self.captured[name], "stats": stats})
        return rows

    async def run(self, options):
        senders = await self.publish(options)
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop.set)
        print("published", file=sys.stderr, flush=True)
        tasks = [asyncio.create_task(one) for one in (*senders, self.obey_all(), stop.wait())]
        done, _ = await asyncio.wait(
            tasks, timeout=options.seconds, return_when=asyncio.FIRST_COMPLETED
        )
        rows = self.rows or await self.read()
        for task in tasks:
            task.cancel()
        for task in done:
            task.result()
        return {**self.summary(rows), "mutes": self.mutes}, rows

    @staticmethod
    def summary(rows):
        found = {}
        for row in rows:
            stats = row["stats"]
            keys = ("packetsSent", "bytesSent", "retransmittedPacketsSent", "nackCount")
            found[row["kind"]] = {key: count(stats, key) for key in keys}
            found[row["kind"]]["framesCaptured"] = row["frames"]
        video = rows[0]["stats"]
        layers = [stat.get("rid") for stat in video if float(stat.get("framesSent", 0)) > 0]
        found["video"] |= {
            "layersActive": len(layers),
            "layersPaused": sum(stat.get("active") is False for stat in video),
            "rids": layers,
            "framesSent": count(video, "framesSent"),
            "keyFramesEncoded": count(video, "keyFramesEncoded"),
            "pliCount": count(video, "pliCount"),
            "width": int(most(video, "frameWidth")),
            "height": int(most(video, "frameHeight")),
        }
        return found


def missing(mode, expect, summary):
    if mode == "subscribe":
        reached = {
            "video": summary["video"]["framesDecoded"],
            "audio": summary["audio"]["packetsReceived"] and summary["audio"]["framesDecoded"],
        }
    else:
        reached = {
            "video": summary["video"]["framesSent"],
            "audio": summary["audio"]["packetsSent"],
        }
    verb = "decoded" if mode == "subscribe" else "sent"
    return [f"no {kind} was {verb}" for kind in expect if not reached[kind] > 0]


async def run(options, token):
    room = rtc.Room()
    events = []
    room.on("reconnecting", lambda: events.append("reconnecting"))
    room.on("reconnected", lambda: events.append("reconnected"))
    room.on("disconnected", lambda reason: events.append(f"disconnected: {reason}"))
    client = Subscriber(room) if options.mode == "subscribe" else Publisher(room)
    started = time.monotonic()
    await asyncio.wait_for(
        room.connect(
            os.environ["LIVEKIT_URL"],
            token,
            rtc.RoomOptions(auto_subscribe=True, dynacast=options.dynacast == "yes"),
        ),
        CONNECT_SECONDS_MAX,
    )
    connect_ms = (time.monotonic() - started) * 1000
    try:
        summary, rows = await client.run(options)
    finally:
        try:
            await asyncio.wait_for(room.disconnect(), CLEANUP_SECONDS_MAX)
        except asyncio.TimeoutError:
            events.append("disconnect timed out")
    failures = missing(options.mode, options.expect, summary)
    line = {
        "client": "python",
        "version": importlib.metadata.version("livekit"),
        "mode": options.mode,
        "room": options.room,
        "identity": options.identity,
        "seconds": options.seconds,
        "connect_ms": connect_ms,
        "events": events,
        **summary,
        "tracks": rows,
        "ok": not failures,
    }
    print(json.dumps(line), flush=True)
    if failures:
        raise Failed("; ".join(failures))


def main():
    options = arguments()
    token = access_token(options)
    handler = logging.StreamHandler()
    handler.setFormatter(Redacting(token))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    try:
        watchdog_s = options.seconds + 2 * CONNECT_SECONDS_MAX + 2 * CLEANUP_SECONDS_MAX
        asyncio.run(asyncio.wait_for(run(options, token), watchdog_s))
    except Exception as error:  # whatever it was, it is one line and a code, never a token
        reason = (str(error) or type(error).__name__).replace(token, "[token]")
        print(f"python_client.py: {reason}", file=sys.stderr, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    # libwebrtc's threads may outlive the interpreter's end; leave without waiting for them.
    CODE = main()
    sys.stdout.flush()
    os._exit(CODE)
