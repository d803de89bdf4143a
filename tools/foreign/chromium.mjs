// Chromium with livekit-client, as a client Stampede did not write.
//
//   node chromium.mjs subscribe --room R [--seconds 8] [--identity I] [--expect video,audio]
//                               [--quality low|medium|high]
//                               [--samples yes] [--data yes] [--rpc yes]
//   node chromium.mjs publish   --room R [--seconds 8] [--identity I] [--expect video,audio]
//                               [--light yes] [--dtx yes] [--screen yes] [--dynacast yes]
//                               [--backup yes]
//                               [--codec vp8|vp9|av1|h264]
//   node chromium.mjs check     says which browser would be used; fails if there is none
//
// LIVEKIT_URL, LIVEKIT_API_KEY and LIVEKIT_API_SECRET say where and as whom; CHROMIUM names another
// browser binary. Prints one JSON line with getStats() figures; exit code 1 and a reason on stderr
// when a kind named by --expect was not decoded (or not sent), 2 for bad arguments. A publisher
// says `published` on stderr once it sends, a subscriber `watching` once all it expects comes;
// SIGINT ends both early, with their figures. With --samples a subscriber also hands out its figures
// of every 200 ms, with the time of day. With --data it counts the data messages that come, and sends
// messages, a text stream and a byte stream of its own; frames of data tracks are counted always.
// With --rpc it answers `stampede.echo` with what it is called with, and calls everybody three times.
//
// --light makes the camera's picture small, for machines with few cores; --codec is what it publishes,
// VP9 and AV1 as livekit-client does by default, in scalable layers (L3T3_KEY); --dtx lets the
// microphone pause in silence; --screen adds a screen share; --dynacast pauses layers that nobody
// watches; --backup has VP8 ready for those who can't receive the codec (needs --dynacast).
// What a publisher does then, it reads line by line from stdin, and says on stderr when it is done:
// `mute` (`muted`), `unmute` (`unmuted`), `quiet` (`quiet`: silence comes from the microphone),
// `still` (`still`: the screen share sends no more pictures), `unpublish` (`unpublished`: all
// tracks).
import { createHmac, randomBytes } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import process from 'node:process';
import { createInterface } from 'node:readline';

const CONNECT_SECONDS_MAX = 30;
const CLEANUP_SECONDS_MAX = 30;
const BROWSERS = ['/usr/lib/chromium/chromium', '/usr/bin/chromium', '/usr/bin/chromium-browser',
    '/usr/bin/google-chrome'];
const BROWSER_FLAGS = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
    '--disable-background-networking', '--disable-component-update', '--disable-sync',
    '--disable-dev-shm-usage', '--allow-loopback-in-peer-connection',
    '--disable-features=WebRtcHideLocalIpsWithMdns',
    '--autoplay-policy=no-user-gesture-required'];
const PUBLISH_FLAGS = ['--use-fake-device-for-media-stream=fps=30',
    '--use-fake-ui-for-media-stream'];

// What the page says when it has come that far.
const SAID = ['published', 'watching', 'muted', 'unmuted', 'quiet', 'still', 'unpublished'];
const COMMANDS = ['mute', 'unmute', 'quiet', 'still', 'unpublish'];
// Flags that are yes or no.
const SWITCHES = ['samples', 'data', 'rpc', 'light', 'dtx', 'screen', 'dynacast', 'backup'];

class UsageError extends Error {}

function parseArguments(argv) {
    const options = { mode: argv[0], room: null, seconds: 8, identity: null, expect: ['video'],
        quality: 'high', codec: 'vp8' };
    for (const name of SWITCHES) options[name] = 'no';
    if (options.mode === 'check') return options;
    if (!['subscribe', 'publish'].includes(options.mode)) {
        throw new UsageError(`the mode must be subscribe, publish or check, not ${argv[0]}`);
    }
    for (let at = 1; at < argv.length; at += 2) {
        const [flag, value] = [argv[at], argv[at + 1]];
        if (value === undefined) throw new UsageError(`${flag} needs a value`);
        if (flag === '--room') options.room = value;
        else if (flag === '--identity') options.identity = value;
        else if (flag === '--seconds') options.seconds = Number(value);
        else if (flag === '--expect') options.expect = value.split(',').filter(Boolean);
        else if (flag === '--quality') options.quality = value;
        else if (flag === '--codec') options.codec = value;
        else if (SWITCHES.some((name) => flag === `--${name}`)) options[flag.slice(2)] = value;
        else throw new UsageError(`unknown flag ${flag}`);
    }
    if (!options.room) throw new UsageError('--room is missing');
    if (!(options.seconds > 0)) throw new UsageError('--seconds must be a number above 0');
    if (options.expect.some((kind) => !['video', 'audio'].includes(kind))) {
        throw new UsageError('--expect takes video and audio, comma between them');
    }
    if (!['low', 'medium', 'high'].includes(options.quality)) {
        throw new UsageError('--quality takes low, medium or high');
    }
    if (!['vp8', 'vp9', 'av1', 'h264'].includes(options.codec)) {
        throw new UsageError('--codec takes vp8, vp9, av1 or h264');
    }
    for (const name of SWITCHES) {
        if (!['yes', 'no'].includes(options[name])) {
            throw new UsageError(`--${name} takes yes or no`);
        }
        options[name] = options[name] === 'yes';
    }
    options.identity ??= `chromium-${options.mode}-${randomBytes(4).toString('hex')}`;
    return options;
}

function environment(name) {
    const value = process.env[name];
    if (!value) throw new UsageError(`${name} is not set`);
    return value;
}

/** A LiveKit access token: an HS256 JWT with a `video` grant. */
function accessToken(key, secret, options) {
    const now_s = Math.floor(Date.now() / 1000);
    const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
    const publishes = options.mode === 'publish';
    const body = part({ alg: 'HS256', typ: 'JWT' }) + '.' + part({
        iss: key,
        sub: options.identity,
        nbf: now_s - 10,
        exp: now_s + 3600,
        video: { roomJoin: true, room: options.room, canPublish: publishes,
            canSubscribe: !publishes, canPublishData: options.data || options.rpc },
    });
    return `${body}.${createHmac('sha256', secret).update(body).digest('base64url')}`;
}

/** Serves an empty page and livekit-client's UMD file on 127.0.0.1 (a secure context). */
function servePage() {
    const path = 'node_modules/livekit-client/dist/livekit-client.umd.js';
    const umd = readFileSync(new URL(path, import.meta.url));
    const page = '<!doctype html><meta charset="utf-8"><title>Stampede: foreign client</title>'
        + '<script src="/livekit-client.umd.js"></script>';
    const server = createServer((request, response) => {
        if (request.url === '/livekit-client.umd.js') {
            response.writeHead(200, { 'content-type': 'text/javascript' }).end(umd);
        } else if (request.url === '/') {
            response.writeHead(200, { 'content-type': 'text/html' }).end(page);
        } else if (request.url === '/favicon.ico') {
            response.writeHead(204).end();
        } else {
            response.writeHead(404).end();
        }
    });
    return new Promise((resolve, reject) => {
        server.once('error', reject);
        server.listen(0, '127.0.0.1', () => resolve(server));
    });
}

/* The two functions below run inside the page: they see nothing of this file. */

async function subscribeInPage({ url, token, seconds, expect, quality, sample, exchange, call,
    connect_seconds_max }) {
    const { Room, RoomEvent, VideoQuality } = globalThis.LivekitClient;
    const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
    const qualities = { low: VideoQuality.LOW, medium: VideoQuality.MEDIUM,
        high: VideoQuality.HIGH };
    const room = new Room({ adaptiveStream: false, dynacast: false });
    const tracks = [];
    const events = [];
    room.on(RoomEvent.Reconnecting, () => events.push('reconnecting'));
    room.on(RoomEvent.Reconnected, () => events.push('reconnected'));
    room.on(RoomEvent.SignalReconnecting, () => events.push('signal reconnecting'));
    room.on(RoomEvent.Disconnected, (reason) => events.push(`disconnected: ${reason}`));
    room.on(RoomEvent.TrackSubscribed, (track, publication, participant) => {
        document.body.appendChild(track.attach());
        if (track.kind === 'video' && quality !== 'high') {
            publication.setVideoQuality(qualities[quality]);
        }
        tracks.push({ track, sid: publication.trackSid, identity: participant.identity });
    });
    const data = { reliable: 0, lossy: 0, bytes: 0, sent: 0, frames: 0, frame_bytes: 0 };
    const rpc = { asked: 0, called: 0, answered: 0, error: null };
    if (call) {
        room.registerRpcMethod('stampede.echo', async ({ payload }) => {
            rpc.asked += 1;
            return payload;
        });
    }
    room.on(RoomEvent.DataTrackPublished, async (track) => {
        for await (const frame of track.subscribe()) {
            data.frames += 1;
            data.frame_bytes += frame.payload.length;
        }
    });
    room.on(RoomEvent.DataReceived, (payload, participant, kind) => {
        data[kind === 1 ? 'lossy' : 'reliable'] += 1;
        data.bytes += payload.length;
    });
    const started = performance.now();
    await room.connect(url, token, { maxRetries: 0 });
    const connect_ms = performance.now() - started;
    const wanted = (kind) => tracks.some((entry) => entry.track.kind === kind);
    while (!expect.every(wanted) && performance.now() - started < connect_seconds_max * 1000) {
        await sleep(50);
    }

    const read = async () => {
        const rows = [];
        for (const { track, sid, identity } of tracks) {
            const report = await track.getRTCStatsReport();
            for (const stat of report?.values() ?? []) {
                if (stat.type !== 'inbound-rtp') continue;
                const codec = report.get(stat.codecId)?.mimeType ?? null;
                rows.push({ sid, identity, kind: stat.kind, codec,
                    packetsReceived: stat.packetsReceived, packetsLost: stat.packetsLost,
                    packetsDiscarded: stat.packetsDiscarded, bytesReceived: stat.bytesReceived,
                    jitter: stat.jitter, nackCount: stat.nackCount, pliCount: stat.pliCount,
                    firCount: stat.firCount, framesReceived: stat.framesReceived,
                    framesDecoded: stat.framesDecoded, framesDropped: stat.framesDropped,
                    keyFramesDecoded: stat.keyFramesDecoded, freezeCount: stat.freezeCount,
                    totalFreezesDuration: stat.totalFreezesDuration,
                    retransmittedPacketsReceived: stat.retransmittedPacketsReceived,
                    frameWidth: stat.frameWidth, frameHeight: stat.frameHeight,
                    totalSamplesReceived: stat.totalSamplesReceived,
                    concealedSamples: stat.concealedSamples,
                    totalAudioEnergy: stat.totalAudioEnergy });
            }
        }
        return rows;
    };
    const samples = [];
    const watch = async (ms) => {
        const ends = performance.now() + ms;
        while (performance.now() < ends && !globalThis.stampedeStop) {
            if (sample) samples.push({ at_ms: Date.now(), rows: await read() });
            await sleep(Math.min(sample ? 200 : 50, Math.max(0, ends - performance.now())));
        }
    };
    console.info('watching');
    if (exchange) {
        const local = room.localParticipant;
        const topic = 'foreign';
        for (let number = 0; number < 10; number += 1) {
            for (const reliable of [true, false]) {
                const message = new TextEncoder().encode(`message ${number}`);
                await local.publishData(message, { reliable, topic });
                data.sent += 1;
            }
            await sleep(50);
        }
        await local.sendText('a text. '.repeat(5000), { topic });
        const writer = await local.streamBytes({ name: 'bytes', topic });
        await writer.write(new Uint8Array(40000));
        await writer.close();
    }
    for (const bytes of call ? [100, 100, 20000] : []) {
        const others = [...room.remoteParticipants.values()].map((other) => other.identity);
        for (const destinationIdentity of others) {
            const payload = 'é'.repeat(bytes / 2);
            rpc.called += 1;
            try {
                const method = 'stampede.echo';
                const answer = await room.localParticipant.performRpc(
                    { destinationIdentity, method, payload });
                rpc.answered += answer === payload ? 1 : 0;
            } catch (error) {
                rpc.error = `${destinationIdentity}: ${error}`;
            }
        }
    }
    await watch(seconds * 500);
    const half = await read();
    await watch(seconds * 500);
    const rows = await read();
    await room.disconnect();
    for (const row of rows) {
        const before = half.find((other) => other.sid === row.sid);
        if (row.kind === 'video') row.framesDecodedHalf = before?.framesDecoded ?? 0;
        else row.packetsReceivedHalf = before?.packetsReceived ?? 0;
    }
    return { connect_ms, events, serverVersion: room.serverInfo?.version ?? null, rows,
        samples, data, rpc };
}

async function publishInPage({ url, token, seconds, codec, light, dtx, screen, dynacast,
    backup }) {
    const { Room, RoomEvent, Track, createLocalTracks } = globalThis.LivekitClient;
    const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
    const room = new Room({ adaptiveStream: false, dynacast });
    const events = [];
    room.on(RoomEvent.Reconnecting, () => events.push('reconnecting'));
    room.on(RoomEvent.SignalReconnecting, () => events.push('signal reconnecting'));
    room.on(RoomEvent.Disconnected, (reason) => events.push(`disconnected: ${reason}`));
    const started = performance.now();
    await room.connect(url, token, { maxRetries: 0 });
    const connect_ms = performance.now() - started;

    // With DTX a tone of our own, since the fake device is never silent for long.
    const context = new AudioContext();
    const gain = new GainNode(context, { gain: 0.3 });
    const tone = () => {
        const microphone = new MediaStreamAudioDestinationNode(context, { channelCount: 1 });
        const oscillator = new OscillatorNode(context, { frequency: 440 });
        oscillator.connect(gain).connect(microphone);
        oscillator.start();
        return microphone.stream.getAudioTracks()[0];
    };
    const resolution = light ? { width: 640, height: 360, frameRate: 15 }
        : { width: 1280, height: 720, frameRate: 30 };
    const tracks = await createLocalTracks({ audio: !dtx, video: { resolution } });
    const own = { videoCodec: codec, simulcast: true, red: true, dtx,
        backupCodec: backup ? { codec: 'vp8' } : false };
    for (const track of tracks) await room.localParticipant.publishTrack(track, own);
    if (dtx) {
        const source = Track.Source.Microphone;
        const { track } = await room.localParticipant.publishTrack(tone(), { ...own, source });
        tracks.push(track);
    }
    let drawing = null;
    let desk = null;
    if (screen) {
        const canvas = document.createElement('canvas');
        [canvas.width, canvas.height] = [640, 360];
        const paint = canvas.getContext('2d');
        const [shared] = canvas.captureStream(0).getVideoTracks();
        shared.contentHint = 'text';
        let count = 0;
        drawing = setInterval(() => {
            count += 1;
            paint.fillStyle = `hsl(${(count * 12) % 360} 80% 50%)`;
            paint.fillRect((count * 16) % 640, 0, 64, 360);
            shared.requestFrame();
        }, 100);
        const source = Track.Source.ScreenShare;
        const options = { ...own, simulcast: false, source };
        desk = (await room.localParticipant.publishTrack(shared, options)).track;
    }

    const read = async () => {
        const rows = [];
        for (const track of tracks) {
            const report = await track.getRTCStatsReport();
            for (const stat of report?.values() ?? []) {
                if (stat.type !== 'outbound-rtp') continue;
                const remote = report.get(stat.remoteId);
                rows.push({ sid: track.sid, kind: stat.kind, rid: stat.rid ?? null,
                    codec: report.get(stat.codecId)?.mimeType ?? null,
                    active: stat.active ?? null,
                    packetsSent: stat.packetsSent, bytesSent: stat.bytesSent,
                    retransmittedPacketsSent: stat.retransmittedPacketsSent,
                    framesSent: stat.framesSent, framesEncoded: stat.framesEncoded,
                    keyFramesEncoded: stat.keyFramesEncoded, frameWidth: stat.frameWidth,
                    frameHeight: stat.frameHeight, nackCount: stat.nackCount,
                    pliCount: stat.pliCount, firCount: stat.firCount,
                    qualityLimitationReason: stat.qualityLimitationReason,
                    remotePacketsLost: remote?.packetsLost ?? null,
                    remoteRoundTripTime: remote?.roundTripTime ?? null });
            }
        }
        return rows;
    };
    let rows = null;
    let mutes = 0;
    const each = async (all, act) => { for (const one of all) await act(one); };
    globalThis.stampedeObey = {
        mute: async () => {
            await each(tracks, (track) => track.mute());
            mutes += 1;
            console.info('muted');
        },
        unmute: async () => {
            await each(tracks, (track) => track.unmute());
            console.info('unmuted');
        },
        quiet: () => {
            gain.gain.value = 0;
            console.info('quiet');
        },
        still: () => {
            clearInterval(drawing);
            console.info('still');
        },
        unpublish: async () => {
            rows = await read();
            const all = desk ? [...tracks, desk] : tracks;
            await each(all, (track) => room.localParticipant.unpublishTrack(track));
            console.info('unpublished');
        },
    };
    const publish_ms = performance.now() - started;
    console.info('published');
    for (let slept_ms = 0; slept_ms < seconds * 1000 && !globalThis.stampedeStop; slept_ms += 50) {
        await sleep(50);
    }
    rows ??= await read();
    await room.disconnect();
    return { connect_ms, publish_ms, events, serverVersion: room.serverInfo?.version ?? null,
        rows, mutes };
}

/* Back in node. */

const sum = (rows, key) => rows.reduce((total, row) => total + (row[key] ?? 0), 0);
const most = (rows, key) => rows.reduce((top, row) => Math.max(top, row[key] ?? 0), 0);

/** Sums over tracks; width, height and jitter are the greatest of any track. */
function summarise(mode, rows) {
    const [video, audio] = ['video', 'audio'].map((kind) => rows.filter((r) => r.kind === kind));
    const sids = (list) => new Set(list.map((row) => row.sid)).size;
    const totals = (list, keys) => Object.fromEntries(keys.map((key) => [key, sum(list, key)]));
    if (mode === 'subscribe') {
        const packets = ['packetsReceived', 'packetsLost', 'bytesReceived', 'nackCount',
            'retransmittedPacketsReceived'];
        return {
            video: { tracks: sids(video), ...totals(video, [...packets, 'framesReceived',
                'framesDecoded', 'framesDecodedHalf', 'framesDropped', 'keyFramesDecoded',
                'freezeCount', 'pliCount']), jitter: most(video, 'jitter'),
            width: most(video, 'frameWidth'), height: most(video, 'frameHeight') },
            audio: { tracks: sids(audio), ...totals(audio, [...packets, 'packetsReceivedHalf',
                'totalSamplesReceived', 'concealedSamples', 'totalAudioEnergy']),
            jitter: most(audio, 'jitter') },
        };
    }
    const sent = ['packetsSent', 'bytesSent', 'retransmittedPacketsSent', 'nackCount'];
    const running = video.filter((row) => row.framesSent > 0);
    const layers = running.map((row) => row.rid);
    const codecs = [...new Set(running.map((row) => row.codec))].sort();
    return {
        video: { tracks: sids(video), layersActive: layers.length, rids: layers, codecs,
            layersPaused: video.filter((row) => row.active === false).length,
            ...totals(video, [...sent, 'framesSent', 'keyFramesEncoded', 'pliCount']),
            width: most(video, 'frameWidth'), height: most(video, 'frameHeight') },
        audio: { tracks: sids(audio), ...totals(audio, sent) },
    };
}

function missing(mode, expect, summary) {
    const reached = mode === 'subscribe'
        ? { video: summary.video.framesDecoded, audio: summary.audio.totalSamplesReceived }
        : { video: summary.video.framesSent, audio: summary.audio.packetsSent };
    const verb = mode === 'subscribe' ? 'decoded' : 'sent';
    return expect.filter((kind) => !(reached[kind] > 0)).map((kind) => `no ${kind} was ${verb}`);
}

async function main() {
    const options = parseArguments(process.argv.slice(2));
    const executablePath = [process.env.CHROMIUM, ...BROWSERS].find((it) => it && existsSync(it));
    if (!executablePath) throw new UsageError('no Chromium found: apt-get install chromium');
    if (options.mode === 'check') {
        process.stdout.write(`${executablePath}\n`);
        return;
    }
    const url = environment('LIVEKIT_URL');
    const token = accessToken(environment('LIVEKIT_API_KEY'), environment('LIVEKIT_API_SECRET'),
        options);
    const redact = (text) => String(text).replaceAll(token, '[token]');
    const { chromium } = await import('playwright-core');

    const profile = mkdtempSync(join(tmpdir(), 'stampede-chromium-'));
    const server = await servePage();
    let context;
    const cleanup = async () => {
        await context?.close().catch(() => {});
        server.close();
        // The browser's helpers may write a last file after the browser has gone.
        for (let tries = 0; tries < 10 && existsSync(profile); tries += 1) {
            rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
            await new Promise((resolve) => setTimeout(resolve, 50));
        }
    };
    const watchdog_s = options.seconds + 2 * CONNECT_SECONDS_MAX + CLEANUP_SECONDS_MAX;
    const watchdog = setTimeout(() => {
        process.stderr.write(`chromium.mjs: gave up after ${watchdog_s} s\n`);
        process.exit(1);
    }, watchdog_s * 1000);
    try {
        context = await chromium.launchPersistentContext(profile, {
            executablePath,
            headless: true,
            handleSIGINT: false,
            // What Debian's start script sets; we start the binary itself so that ending the
            // process ends the browser.
            env: { ...process.env, CHROME_WRAPPER: executablePath, HOME: profile,
                LD_LIBRARY_PATH: dirname(executablePath) },
            args: options.mode === 'publish' ? [...BROWSER_FLAGS, ...PUBLISH_FLAGS]
                : BROWSER_FLAGS,
        });
        const page = context.pages()[0] ?? await context.newPage();
        page.on('console', (message) => {
            const text = redact(message.text()).slice(0, 200);
            if (message.type() === 'error' || message.type() === 'warning'
                || SAID.includes(text)) {
                process.stderr.write(SAID.includes(text) ? `${text}\n` : `page: ${text}\n`);
            }
        });
        process.once('SIGINT', () => {
            page.evaluate(() => { globalThis.stampedeStop = true; }).catch(() => {});
        });
        createInterface({ input: process.stdin }).on('line', (command) => {
            if (!COMMANDS.includes(command)) {
                process.stderr.write(`chromium.mjs: unknown command ${command}\n`);
                return;
            }
            page.evaluate((name) => globalThis.stampedeObey[name](), command).catch((error) => {
                process.stderr.write(`chromium.mjs: ${command}: ${redact(error?.message)}\n`);
            });
        });
        await page.goto(`http://127.0.0.1:${server.address().port}/`);
        const outcome = await page.evaluate(
            options.mode === 'publish' ? publishInPage : subscribeInPage,
            { url, token, seconds: options.seconds, expect: options.expect,
                quality: options.quality, sample: options.samples, codec: options.codec,
                exchange: options.data, call: options.rpc, light: options.light, dtx: options.dtx,
                screen: options.screen, dynacast: options.dynacast, backup: options.backup,
                connect_seconds_max: CONNECT_SECONDS_MAX });
        const summary = summarise(options.mode, outcome.rows);
        const failures = missing(options.mode, options.expect, summary);
        const version = context.browser()?.version() ?? await page.evaluate(
            () => navigator.userAgent.match(/Chrome\/([\d.]+)/)?.[1] ?? null);
        process.stdout.write(`${JSON.stringify({ client: 'chromium', version,
            mode: options.mode, room: options.room, identity: options.identity,
            seconds: options.seconds, connect_ms: outcome.connect_ms,
            publish_ms: outcome.publish_ms, server_version: outcome.serverVersion,
            events: outcome.events, mutes: outcome.mutes, data: outcome.data, rpc: outcome.rpc,
            ...summary, tracks: outcome.rows,
            samples: (outcome.samples ?? []).map(({ at_ms, rows }) => (
                { at_ms, ...summarise(options.mode, rows) })),
            ok: failures.length === 0 })}\n`);
        if (failures.length > 0) throw new Error(failures.join('; '));
    } catch (error) {
        throw new Error(redact(error?.message ?? error).split('\n')[0]);
    } finally {
        clearTimeout(watchdog);
        await cleanup();
    }
}

main().then(() => process.exit(0), (error) => {
    process.stderr.write(`chromium.mjs: ${error.message}\n`);
    process.exit(error instanceof UsageError ? 2 : 1);
});
