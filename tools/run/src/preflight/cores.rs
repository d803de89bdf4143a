//! Who runs on which core: media workers first, the embedded SFU and signalling around them.

use stampede_scenario::values::CoreList;

/// The division of the machine for one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoreSplit {
    /// Media workers, one pinned to each; more workers than cores share them round robin.
    pub worker_cores: Vec<usize>,
    /// Number of media workers.
    pub workers: usize,
    /// Cores of the embedded SFU's media workers; empty without one, or where it must share.
    pub sfu_cores: Vec<usize>,
    /// Cores left for signalling, the disk thread and everything else; empty leaves them unpinned.
    pub other_cores: Vec<usize>,
}

/// What was asked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct CoresAsked<'a> {
    /// `--cores`.
    pub cores: Option<&'a CoreList>,
    /// `--workers`.
    pub workers: Option<u32>,
    /// True if the embedded SFU runs on this machine too.
    pub embedded: bool,
    /// `--embedded-cores`.
    pub embedded_cores: Option<&'a CoreList>,
}

/// Most workers; a worker's number must fit in a [`stampede_engine::PeerId`].
const WORKERS_MAX: u32 = 1_024;

/// Divides the cores this process may use.
///
/// # Errors
/// One line naming the flag, the core and the cores that are allowed.
pub fn split(allowed: &[usize], asked: CoresAsked<'_>) -> Result<CoreSplit, String> {
    if let Some(workers) = asked.workers.filter(|workers| *workers > WORKERS_MAX) {
        return Err(format!("--workers {workers}: at most {WORKERS_MAX} are possible"));
    }
    for (flag, list) in [("--cores", asked.cores), ("--embedded-cores", asked.embedded_cores)] {
        let outside = list.and_then(|list| list.0.iter().find(|core| !allowed.contains(core)));
        if let Some(core) = outside {
            return Err(format!(
                "{flag}: core {core} is not one this process may use (those are {}); see \
                 `taskset -p $$` or the container's CPU set",
                show(allowed)
            ));
        }
    }
    let sfu_cores = sfu_cores(allowed, asked);
    let worker_cores = match asked.cores {
        Some(list) => list.0.clone(),
        None => free_for_workers(allowed, &sfu_cores),
    };
    let workers = asked.workers.map_or(worker_cores.len(), |workers| workers as usize);
    let worker_cores: Vec<usize> = worker_cores.into_iter().take(workers.max(1)).collect();
    let rest = |without_sfu: bool| -> Vec<usize> {
        let taken = |core: &&usize| {
            worker_cores.contains(core) || (without_sfu && sfu_cores.contains(core))
        };
        allowed.iter().filter(|core| !taken(core)).copied().collect()
    };
    // A core of its own for signalling where there is one, else beside the SFU, never by
    // intention on a worker's core.
    let other_cores =
        Some(rest(true)).filter(|rest| !rest.is_empty()).unwrap_or_else(|| rest(false));
    Ok(CoreSplit { worker_cores, workers, sfu_cores, other_cores })
}

fn sfu_cores(allowed: &[usize], asked: CoresAsked<'_>) -> Vec<usize> {
    match (asked.embedded, asked.embedded_cores) {
        (false, _) => Vec::new(),
        (true, Some(list)) => list.0.clone(),
        (true, None) if allowed.len() < 2 => Vec::new(),
        (true, None) => {
            let taken = |core: &&usize| asked.cores.is_some_and(|list| list.0.contains(core));
            let free: Vec<usize> = allowed.iter().filter(|core| !taken(core)).copied().collect();
            // Workers that were asked for come first, and signalling has a core where there is one.
            let wanted = asked.workers.filter(|_| asked.cores.is_none());
            let beside = wanted.map_or(0, |workers| workers as usize);
            let count = sfu_share(allowed.len()).min(free.len().saturating_sub(1 + beside)).max(1);
            free[free.len().saturating_sub(count)..].to_vec()
        }
    }
}

/// How many of so many cores the embedded SFU gets: to send a packet takes about as long as to receive
/// it, so half of what signalling leaves, and the workers the larger half.
fn sfu_share(cores: usize) -> usize {
    (cores.saturating_sub(1) / 2).max(1)
}

/// Cores for workers when none are named: all that the SFU leaves, less one for signalling if
/// that still leaves the workers the larger share.
fn free_for_workers(allowed: &[usize], sfu: &[usize]) -> Vec<usize> {
    let mut free: Vec<usize> = allowed.iter().filter(|core| !sfu.contains(core)).copied().collect();
    if free.is_empty() {
        return allowed.to_vec();
    }
    let spare_one = if sfu.is_empty() { free.len() >= 2 } else { free.len() >= 3 };
    if spare_one {
        free.remove(0);
    }
    free
}

fn show(cores: &[usize]) -> String {
    CoreList(cores.to_vec()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(cores: &[usize]) -> CoreList {
        CoreList(cores.to_vec())
    }

    #[test]
    fn the_machine_is_divided_by_its_size() {
        let embedded = CoresAsked { embedded: true, ..CoresAsked::default() };
        for (allowed, asked, workers, sfu, other) in [
            (&[0][..], embedded, &[0][..], &[][..], &[][..]),
            (&[0, 1], embedded, &[0], &[1], &[1]),
            (&[0, 1, 2], embedded, &[0, 1], &[2], &[2]),
            (&[0, 1, 2, 3], embedded, &[1, 2], &[3], &[0]),
            (&[0, 1, 2, 3, 4], embedded, &[1, 2], &[3, 4], &[0]),
            (&[0, 1, 2, 3, 4, 5, 6, 7], embedded, &[1, 2, 3, 4], &[5, 6, 7], &[0]),
            (&[0], CoresAsked::default(), &[0], &[], &[]),
            (&[0, 1], CoresAsked::default(), &[1], &[], &[0]),
            (&[2, 3, 6], CoresAsked::default(), &[3, 6], &[], &[2]),
        ] {
            let split = split(allowed, asked).unwrap();
            assert_eq!(split.worker_cores, workers, "{allowed:?}");
            assert_eq!(split.sfu_cores, sfu, "{allowed:?}");
            assert_eq!(split.other_cores, other, "{allowed:?}");
            assert_eq!(split.workers, workers.len());
        }
    }

    #[test]
    fn named_cores_and_workers_are_obeyed() {
        let cores = list(&[1]);
        let asked = CoresAsked { cores: Some(&cores), embedded: true, ..CoresAsked::default() };
        let divided = split(&[0, 1], asked).unwrap();
        assert_eq!((divided.worker_cores, divided.sfu_cores), (vec![1], vec![0]));
        let divided = split(&[0, 1], CoresAsked { workers: Some(4), ..asked }).unwrap();
        assert_eq!((divided.workers, divided.worker_cores), (4, vec![1]));
        let named = list(&[1, 2, 3, 4]);
        let asked = CoresAsked { cores: Some(&named), ..asked };
        let divided = split(&[0, 1, 2, 3, 4, 5, 6, 7], asked).unwrap();
        assert_eq!((divided.sfu_cores, divided.other_cores), (vec![5, 6, 7], vec![0]));
        let divided = split(&[0, 1, 2, 3, 4, 5], asked).unwrap();
        assert_eq!((divided.sfu_cores, divided.other_cores), (vec![5], vec![0]));
        let all = list(&[0, 1]);
        let divided = split(&[0, 1], CoresAsked { cores: Some(&all), ..asked }).unwrap();
        assert!(divided.sfu_cores.is_empty(), "no core is left for it alone");
        // How many workers, and their cores: the SFU has what they leave, and one at least.
        for (workers, worker_cores, sfu) in [
            (2, &[1, 2][..], &[5, 6, 7][..]),
            (5, &[1, 2, 3, 4, 5], &[6, 7]),
            (6, &[1, 2, 3, 4, 5, 6], &[7]),
            (9, &[1, 2, 3, 4, 5, 6], &[7]),
        ] {
            let asked = CoresAsked { workers: Some(workers), ..CoresAsked::default() };
            let asked = CoresAsked { embedded: true, ..asked };
            let divided = split(&[0, 1, 2, 3, 4, 5, 6, 7], asked).unwrap();
            assert_eq!((&*divided.worker_cores, &*divided.sfu_cores), (worker_cores, sfu));
            assert_eq!(divided.workers, workers as usize);
        }
    }

    #[test]
    fn cores_outside_the_affinity_mask_are_refused_by_name() {
        let cores = list(&[0, 7]);
        let asked = CoresAsked { cores: Some(&cores), ..CoresAsked::default() };
        let error = split(&[0, 1], asked).unwrap_err();
        assert!(error.contains("--cores: core 7") && error.contains("0,1"), "{error}");
        let asked = CoresAsked { embedded: true, embedded_cores: Some(&cores), ..asked };
        let asked = CoresAsked { cores: None, ..asked };
        assert!(split(&[0, 1], asked).unwrap_err().contains("--embedded-cores: core 7"));
        let asked = CoresAsked { workers: Some(5_000), ..CoresAsked::default() };
        assert!(split(&[0], asked).unwrap_err().contains("--workers 5000"));
    }
}
