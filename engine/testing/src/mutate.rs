//! Inputs made of others, by a seed: what a fuzzer does without coverage. It finds what a few changes of
//! a real input bring about; what takes many at once is for `fuzz/`.

use fastrand::Rng;

/// Numbers at which counting goes wrong.
const EDGES: [u64; 12] =
    [0, 1, 2, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 0x7fff_ffff, 0xffff_ffff, u64::MAX];

/// Changes an input, in a few places; `other` is another one, of which it may get parts, and `words` are
/// pieces that mean something to the target.
pub fn mutate(rng: &mut Rng, input: &mut Vec<u8>, other: &[u8], words: &[&[u8]]) {
    for _ in 0..1 << rng.u8(0..4) {
        once(rng, input, other, words);
    }
}

fn once(rng: &mut Rng, input: &mut Vec<u8>, other: &[u8], words: &[&[u8]]) {
    let at = rng.usize(..=input.len());
    let most = 1 << rng.u8(0..9);
    let len = rng.usize(..=(input.len() - at).min(most));
    match rng.u8(0..12) {
        0 | 1 => {
            if let Some(byte) = input.get_mut(at) {
                *byte ^= 1 << rng.u8(0..8);
            }
        }
        2 => {
            if let Some(byte) = input.get_mut(at) {
                *byte = rng.u8(..);
            }
        }
        3 => {
            if let Some(byte) = input.get_mut(at) {
                *byte = byte.wrapping_add(rng.u8(0..35).wrapping_sub(17));
            }
        }
        // A number, of either order.
        4 | 5 => {
            let edge = EDGES[rng.usize(..EDGES.len())];
            let width = 1 << rng.u8(0..4);
            let bytes =
                if rng.bool() { edge.to_le_bytes() } else { edge.rotate_right(8).to_be_bytes() };
            let bytes = if rng.bool() { &bytes[..width] } else { &bytes[8 - width..] };
            for (to, from) in input.iter_mut().skip(at).zip(bytes) {
                *to = *from;
            }
        }
        6 => drop(input.drain(at..at + len)),
        // The same again, up to many times.
        7 => {
            let part = input[at..at + len].to_vec();
            let most = 1 << rng.u8(0..7);
            let times = 1 + rng.usize(..most);
            let times = times.min(65_536 / part.len().max(1));
            input.splice(at..at, part.repeat(times));
        }
        8 => {
            let noise: Vec<u8> = (0..rng.usize(1..17)).map(|_| rng.u8(..)).collect();
            input.splice(at..at, noise);
        }
        9 => {
            let from = rng.usize(..=other.len());
            let count = rng.usize(..=other.len() - from);
            input.splice(at..at + len, other[from..from + count].iter().copied());
        }
        10 => {
            if !words.is_empty() {
                let word = words[rng.usize(..words.len())];
                input.splice(at..at + if rng.bool() { len } else { 0 }, word.iter().copied());
            }
        }
        _ => input.truncate(at),
    }
}

/// Tries so many inputs that are made of these, by this seed.
pub fn series(
    seeds: &[Vec<u8>],
    tries: u32,
    seed: u64,
    words: &[&[u8]],
    mut check: impl FnMut(&[u8]),
) {
    let mut rng = Rng::with_seed(seed);
    for _ in 0..tries {
        let (Some(one), Some(other)) = (rng.choice(seeds), rng.choice(seeds)) else { return };
        let mut input = one.clone();
        mutate(&mut rng, &mut input, other, words);
        check(&input);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_makes_the_same_inputs_and_another_one_others() {
        let seeds = [b"one input".to_vec(), b"another, which is longer".to_vec(), Vec::new()];
        let made = |seed| {
            let mut made = Vec::new();
            series(&seeds, 200, seed, &[b"WORD"], |input| made.push(input.to_vec()));
            made
        };
        assert_eq!(made(1), made(1));
        let (one, two) = (made(1), made(2));
        assert_ne!(one, two);
        let changed = one.iter().filter(|input| !seeds.contains(input)).count();
        assert!(changed > 150, "{changed} of 200 differ from what they were made of");
        assert!(one.iter().any(|input| input.windows(4).any(|part| part == b"WORD")));
    }
}
