#!/bin/sh
# Makes the built-in clips from synthetic sources. Needs ffmpeg with libvpx, libx264, libx265, libaom
# and libopus; the
# committed files were made by Debian 12's ffmpeg 5.1. Run it in this folder, then look at what
# `cargo test -p stampede-media --lib builtin` says about rates.
#
# - One picture in three sizes (a simulcast set): the same 150 frames at 25 frames/s, a keyframe
#   every 50 frames at the same moments, so that switching layers is like with a real publisher.
# - testsrc2 moves and counts, so that a viewer sees at once whether time passes; the noise makes
#   the encoder really spend the bitrate (flat synthetic pictures would undershoot it by far).
# - No lookahead and no alternate reference frames: every frame is shown, as from a real-time
#   encoder. Error-resilient. One thread, a fixed speed (a positive -cpu-used would follow the
#   machine's load) and bit-exact containers: a second run with the same ffmpeg gives the same
#   bytes.
set -eu
cd "$(dirname "$0")"

frames=150
source="testsrc2=size=1280x720:rate=25,noise=alls=14:allf=t:all_seed=20"

video() { # NAME SIZE BITRATE BUFFER
  ffmpeg -hide_banner -loglevel error -y -f lavfi -i "$source" -an \
    -vf "scale=$2:flags=bicubic+accurate_rnd+bitexact,format=yuv420p" -frames:v "$frames" \
    -c:v libvpx -deadline realtime -cpu-used -5 -threads 1 \
    -b:v "$3" -minrate "$3" -maxrate "$3" -bufsize "$4" -undershoot-pct 5 -overshoot-pct 20 \
    -qmin 2 -qmax 56 -g 50 -keyint_min 50 -sc_threshold 0 \
    -auto-alt-ref 0 -lag-in-frames 0 -error-resilient 1 \
    -flags:v +bitexact -fflags +bitexact -f ivf "$1"
}

video video-720p.ivf 1280:720 1750k 1750k
video video-360p.ivf 640:360 650k 650k
video video-180p.ivf 320:180 165k 165k

# The other codecs at a lower rate and with two keyframes, so that the program stays small: VP9,
# H.264 and H.265 in the same three sizes, AV1 in one. H.264 is Constrained Baseline without SEI, as browsers
# send it.
frames=100
other() { # NAME FORMAT SIZE BITRATE CODEC-OPTIONS…
  name=$1 format=$2 size=$3 rate=$4
  shift 4
  ffmpeg -hide_banner -loglevel error -y -f lavfi -i "$source" -an \
    -vf "scale=$size:flags=bicubic+accurate_rnd+bitexact,format=yuv420p" -frames:v "$frames" \
    "$@" -threads 1 -b:v "$rate" -maxrate "$rate" -bufsize "$rate" -g 50 -keyint_min 50 \
    -flags:v +bitexact -fflags +bitexact -f "$format" "$name"
}

vp9() { # NAME SIZE BITRATE
  other "$1" ivf "$2" "$3" -c:v libvpx-vp9 -deadline realtime -cpu-used 8 -minrate "$3" \
    -lag-in-frames 0 -auto-alt-ref 0 -error-resilient 1
}

h264() { # NAME SIZE BITRATE
  other "$1" h264 "$2" "$3" -c:v libx264 -profile:v baseline -preset medium -tune zerolatency \
    -sc_threshold 0 -x264-params slices=1:sliced-threads=0 -bsf:v filter_units=remove_types=6
}

# Main profile, without reordering; parameter sets with each keyframe, no SEI.
h265() { # NAME SIZE KILOBITS
  other "$1" hevc "$2" "$3k" -c:v libx265 -preset medium -tune zerolatency -x265-params \
    "log-level=none:bframes=0:open-gop=0:scenecut=0:repeat-headers=1:info=0:pools=none:frame-threads=1:vbv-bufsize=$3:vbv-maxrate=$3"
}

vp9 video-720p.vp9.ivf 1280:720 900k
vp9 video-360p.vp9.ivf 640:360 350k
vp9 video-180p.vp9.ivf 320:180 120k
h264 video-720p.h264 1280:720 900k
h264 video-360p.h264 640:360 350k
h264 video-180p.h264 320:180 120k
h265 video-720p.h265 1280:720 550
h265 video-360p.h265 640:360 220
h265 video-180p.h265 320:180 85
av1() { # NAME SIZE BITRATE
  other "$1" ivf "$2" "$3" -c:v libaom-av1 -usage realtime -cpu-used 8 -row-mt 0 \
    -minrate "$3" -lag-in-frames 0 -error-resilience 1
}

av1 video-360p.av1.ivf 640:360 350k

# In 1080p, 2 s of them, each below half a megabyte.
frames=50
h264 video-1080p.h264 1920:1080 2000k
vp9 video-1080p.vp9.ivf 1920:1080 1500k
h265 video-1080p.h265 1920:1080 1100
av1 video-1080p.av1.ivf 1920:1080 1100k

# A screen that is shared: 5 frames/s for 10 s, a page for 5 s each, on which a pointer moves for 2 s and
# then rests, so that most frames are all but empty. A keyframe at the beginning.
screen() { # NAME FORMAT SIZE BITRATE CODEC-OPTIONS…
  name=$1 format=$2 size=$3 rate=$4
  shift 4
  ffmpeg -hide_banner -loglevel error -y \
    -f lavfi -i "testsrc=size=1920x1080:rate=1/5" -f lavfi -i "color=black:size=16x24:rate=5" \
    -filter_complex "[0]fps=5[page];[page][1]overlay=x='300+600*min(mod(t,5),2)':y='200+300*min(mod(t,5),2)',scale=$size:flags=bicubic+accurate_rnd+bitexact,format=yuv420p" \
    -an -frames:v 50 "$@" -threads 1 -b:v "$rate" -maxrate "$rate" -bufsize "$rate" -g 50 -keyint_min 50 \
    -flags:v +bitexact -fflags +bitexact -f "$format" "$name"
}

for lines in 1080 540; do
  case $lines in
    1080) pixels=1920:1080 kbps=400 ;;
    *) pixels=960:540 kbps=150 ;;
  esac
  screen "screen-${lines}p.ivf" ivf "$pixels" "${kbps}k" -c:v libvpx -deadline realtime -cpu-used -5 \
    -qmin 4 -qmax 40 -sc_threshold 0 -static-thresh 100 -auto-alt-ref 0 -lag-in-frames 0 \
    -error-resilient 1
  screen "screen-${lines}p.h264" h264 "$pixels" "${kbps}k" -c:v libx264 -profile:v baseline -preset medium \
    -tune zerolatency -sc_threshold 0 -x264-params slices=1:sliced-threads=0 \
    -bsf:v filter_units=remove_types=6
  screen "screen-${lines}p.h265" hevc "$pixels" "${kbps}k" -c:v libx265 -preset medium -tune zerolatency \
    -x265-params "log-level=none:bframes=0:open-gop=0:scenecut=0:repeat-headers=1:info=0:pools=none:frame-threads=1:vbv-bufsize=$kbps:vbv-maxrate=$kbps"
done
screen screen-1080p.vp9.ivf ivf 1920:1080 400k -c:v libvpx-vp9 -deadline realtime -cpu-used 8 \
  -tune-content screen -lag-in-frames 0 -auto-alt-ref 0 -error-resilient 1
screen screen-1080p.av1.ivf ivf 1920:1080 400k -c:v libaom-av1 -usage realtime -cpu-used 8 -row-mt 0 \
  -qmin 24 -qmax 50 -lag-in-frames 0 -error-resilience 1

# The scalable clips (video-*.l1t3.*, video-*.l3t3_key.*) are not made here, because no encoder of
# ffmpeg or GStreamer writes spatial layers. A small program did it, with the SVC interfaces of
# libvpx 1.12 (VP9E_SET_SVC_REF_FRAME_CONFIG) and libaom 3.6 (AV1E_SET_SVC_REF_FRAME_CONFIG), from
# the same source, 100 frames, scaled to 640x360 (L1T3) or as it is (L3T3_KEY; layers 2:1):
#
# - a keyframe every 50 pictures; from it on temporal layers 0, 2, 1, 2. A picture of layer 0 refers
#   to the one four before, of 1 to the one two before, of 2 to the one before; in key pictures,
#   and only there, a spatial layer refers to the one below. All references of a frame's header are
#   that one frame. VP9 is error-resilient, so that pictures can be left out.
# - constant bitrate, 60, 80 and 100 % of it up to each temporal layer; L1T3 350 kbps, L3T3_KEY 90,
#   230 and 600 kbps a spatial layer; speed 6 (VP9) or 8 (AV1), quantizers 8 to 58, one thread.
# - IVF: each frame a VP9 superframe with its index, or an AV1 temporal unit with OBU extensions.

# A tone that wobbles in pitch and loudness, plus a little noise: a real Opus encoder's packets
# vary in size, a pure sine's would not.
ffmpeg -hide_banner -loglevel error -y \
  -f lavfi -i "sine=frequency=220:beep_factor=4:sample_rate=48000:duration=6" \
  -f lavfi -i "anoisesrc=colour=pink:amplitude=0.05:sample_rate=48000:seed=20:duration=6" \
  -filter_complex "[0][1]amix=inputs=2,tremolo=f=3:d=0.6,vibrato=f=2:d=0.3" \
  -vn -ac 2 -c:a libopus -b:a 48k -vbr on -application audio -frame_duration 20 \
  -flags:a +bitexact -fflags +bitexact -f ogg audio.ogg

ls -l video-* screen-* audio.ogg
