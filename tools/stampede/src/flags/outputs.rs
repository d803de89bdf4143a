//! Where reports go: each to a place of its own, which is known before anything joins.

use std::path::Path;

use super::RunFlags;
use stampede_output::files::{self, Identity, Place};
use stampede_report::Failure;
use stampede_report::out::{Output, OutputKind};

/// The outputs of a run.
///
/// # Errors
/// The first that is not possible, exit code 104.
pub(crate) fn run_outputs(flags: &RunFlags) -> Result<Vec<Output>, Failure> {
    let video = flags.video.iter().map(|file| ("--video", file.as_path()));
    let audio = flags.audio.iter().map(|file| ("--audio", file.as_path()));
    let scenario = flags.shape.scenario.iter().map(|file| ("--scenario", file.as_path()));
    outputs(flags.out.clone(), &video.chain(audio).chain(scenario).collect::<Vec<_>>())
}

/// Checks that every output can be written, and goes to a file of its own: neither another output's,
/// whatever name it has, nor one of `inputs` (each with what named it), nor the one that stdout or
/// stderr goes to.
///
/// # Errors
/// The first that does not, exit code 104.
pub(crate) fn outputs(
    outputs: Vec<Output>,
    inputs: &[(&str, &Path)],
) -> Result<Vec<Output>, Failure> {
    let mut known: Vec<(Identity, &Output)> = Vec::new();
    for out in &outputs {
        let refuse = |why: String| Err(Failure::config(format!("--out {out}: {why}")));
        let identity = match files::check(&out.path) {
            // Any number of reports may go to /dev/null.
            Ok(None) => continue,
            Ok(Some(identity)) => identity,
            Err(error) => return refuse(format!("it can't be written: {error}")),
        };
        if let Some((_, earlier)) = known.iter().find(|(of_earlier, _)| *of_earlier == identity) {
            return refuse(match earlier.path == out.path {
                true => {
                    format!("{} is given twice; give each a file of its own", out.path.display())
                }
                false => format!(
                    "this is the file of --out {earlier}, by another name; give each one of its own"
                ),
            });
        }
        let is_input = |(_, path): &&(&str, &Path)| {
            Identity::of_input(path).is_some_and(|of_input| of_input == identity)
        };
        // A stored report may be written anew as what it is.
        if let Some((flag, path)) = inputs.iter().find(is_input)
            && (*flag != "FILE" || out.kind != OutputKind::Json)
        {
            let path = path.display();
            return refuse(format!("this is the file {path} of {flag}, which would be lost"));
        }
        if files::place(&out.path) == Place::File {
            for (name, of_stream) in
                [("stdout", Identity::of_stdout()), ("stderr", Identity::of_stderr())]
            {
                if of_stream == identity {
                    return refuse(format!("{name} goes to this file already; name another one"));
                }
            }
        }
        known.push((identity, out));
    }
    Ok(outputs)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn each_output_has_a_file_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        fs::create_dir(path("sub")).unwrap();
        fs::write(path("old"), "").unwrap();
        fs::write(path("clip.ivf"), "").unwrap();
        fs::hard_link(path("old"), path("same")).unwrap();
        symlink("new", path("link")).unwrap();
        let check = |files: &[&str]| {
            let out = files.iter().map(|text| {
                let (kind, name) = text.split_once('=').unwrap();
                let name = if name.starts_with(['/', '-']) { name.to_owned() } else { path(name) };
                format!("{kind}={name}").parse::<Output>().unwrap()
            });
            let inputs =
                [("--video", dir.path().join("clip.ivf")), ("FILE", dir.path().join("old"))];
            let inputs = inputs.each_ref().map(|(flag, path)| (*flag, path.as_path()));
            outputs(out.collect(), &inputs).map_err(|failure| {
                assert_eq!(failure.exit, stampede_report::Exit::BadConfiguration);
                failure.to_string()
            })
        };
        for good in [
            &["json=new", "csv=other", "html=sub/new"][..],
            &["json=/dev/null", "csv=/dev/null"],
            &["json=-", "csv=new"],
            &["json=old"],
        ] {
            assert_eq!(check(good).map(|out| out.len()), Ok(good.len()), "{good:?}");
        }
        for (bad, why) in [
            (&["json=new", "csv=new"][..], "given twice"),
            (&["json=new", "csv=sub/../new"], "by another name"),
            (&["json=new", "csv=link"], "by another name"),
            (&["json=old", "csv=same"], "by another name"),
            (&["json=-", "csv=/dev/stdout"], "by another name"),
            (&["json=-", "csv=-"], "given twice"),
            (&["json=clip.ivf"], "of --video, which would be lost"),
            (&["csv=same"], "of FILE, which would be lost"),
            (&["json=sub"], "it is a folder"),
            (&["json=new/"], "names a folder"),
            (&["json=no/such"], "can't be written"),
        ] {
            let error = check(bad).unwrap_err();
            assert!(error.contains(why), "{bad:?}: {error}");
        }
        assert!(!dir.path().join("new").exists());
    }
}
