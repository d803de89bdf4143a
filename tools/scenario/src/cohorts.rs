//! Who belongs to which part of the subscribers: those of `[[cohort]]`, and those that each
//! `--impair` chose. Every subscriber is in exactly one.
//!
//! Cohorts of the scenario file and choices of `--impair` may cross; each crossing is a part of its
//! own, so that no figure is of a mixture.

use stampede_core::CongestionFeedback;
use stampede_impair::{Spec as ImpairSpec, choose};

use crate::CohortSpec;

/// What those are called that are in no cohort and that no `--impair` chose.
pub const REST: &str = "rest";

/// One part of the subscribers.
#[derive(Debug, Clone, PartialEq)]
pub struct Cohort {
    /// Its name in the report: `mobile`, `impair-1`, `mobile+impair-1` or [`REST`].
    pub name: String,
    /// What is done to what it receives.
    pub impair: Option<Cause>,
    /// What it tells the server of congestion, if not what the run does.
    pub feedback: Option<CongestionFeedback>,
}

/// Where an impairment comes from.
#[derive(Debug, Clone, PartialEq)]
pub struct Cause {
    /// `impair-1` for the first `--impair`, else the name of the `[[cohort]]`.
    pub name: String,
    /// What it is.
    pub spec: ImpairSpec,
}

/// All parts of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Cohorts {
    all: Vec<Cohort>,
    /// `--impair`, which choose by themselves.
    choosing: Vec<ImpairSpec>,
    /// Of each `[[cohort]]` whether it has an impairment of its own; no other then chooses from it.
    own: Vec<bool>,
}

impl Cohorts {
    /// Of these tables, crossed with `choosing`.
    pub fn new(specs: &[CohortSpec], choosing: &[ImpairSpec]) -> Self {
        let choosing = choosing.to_vec();
        let chosen = |number: usize, spec: &ImpairSpec| Cause {
            name: format!("impair-{}", number + 1),
            spec: spec.clone(),
        };
        let mut all = vec![Cohort { name: REST.to_owned(), impair: None, feedback: None }];
        for (number, spec) in choosing.iter().enumerate() {
            let cause = chosen(number, spec);
            all.push(Cohort { name: cause.name.clone(), impair: Some(cause), feedback: None });
        }
        for cohort in specs {
            let name = cohort.name.clone();
            let own = cohort.impair.clone().map(|spec| Cause { name: name.clone(), spec });
            let feedback = cohort.feedback;
            all.push(Cohort { name: name.clone(), impair: own, feedback });
            for (number, spec) in choosing.iter().enumerate() {
                let cause = chosen(number, spec);
                let name = format!("{name}+{}", cause.name);
                all.push(Cohort { name, impair: Some(cause), feedback });
            }
        }
        let own = specs.iter().map(|cohort| cohort.impair.is_some()).collect();
        Self { all, choosing, own }
    }

    /// Where the subscriber of this identity belongs, if it is in this `[[cohort]]`; `seed` decides
    /// whom each `--impair` chooses.
    pub fn index_of(&self, cohort: Option<usize>, identity: &str, seed: u64) -> u16 {
        let own = cohort.is_some_and(|index| self.own.get(index) == Some(&true));
        let chosen = match own {
            true => None,
            false => choose(&self.choosing, seed, identity),
        };
        let first = cohort.map_or(0, |index| index + 1) * (self.choosing.len() + 1);
        (first + chosen.map_or(0, |number| number + 1)) as u16
    }

    /// All of them by index.
    pub fn all(&self) -> &[Cohort] {
        &self.all
    }

    /// The name of one; `None` for [`REST`].
    pub fn name(&self, index: u16) -> Option<&str> {
        let cohort = self.all.get(usize::from(index)).filter(|_| index > 0)?;
        Some(&cohort.name)
    }

    /// Whether a part is of those called so: `mobile` are all of that `[[cohort]]`, whatever
    /// `--impair` chose of them, `impair-1` all that it chose, and `mobile+impair-1` who is both.
    pub fn holds(&self, name: &str, index: u16) -> bool {
        let part = self.all.get(usize::from(index)).map(|cohort| &*cohort.name);
        part.is_some_and(|part| part == name || part.split('+').any(|side| side == name))
    }

    /// Checks that a figure of the report, if it is of a cohort, is of one of these.
    ///
    /// # Errors
    /// Which there are.
    pub fn check(&self, key: &str) -> Result<(), String> {
        let (rest, names, none) = if let Some(rest) = key.strip_prefix("cohorts.") {
            let all = if self.is_trivial() { &[][..] } else { &self.all };
            (rest, all.iter().map(|cohort| &*cohort.name).collect(), "this run has no cohorts")
        } else if let Some(rest) = key.strip_prefix("impairment.cohorts.") {
            let names: Vec<_> = self.causes().into_iter().map(|cause| &*cause.name).collect();
            (rest, names, "nothing is impaired in this run")
        } else {
            return Ok(());
        };
        let is = |name: &&str| rest.strip_prefix(*name).is_some_and(|rest| rest.starts_with('.'));
        if names.iter().any(is) {
            return Ok(());
        }
        if names.is_empty() {
            return Err(format!("{none}: add a [[cohort]] or an --impair, or leave it out"));
        }
        let name = rest.split('.').next().unwrap_or_default();
        Err(format!("there is no '{name}' among '{}'", names.join("', '")))
    }

    /// True if there is nothing to tell apart.
    pub fn is_trivial(&self) -> bool {
        self.all.len() == 1
    }

    /// Impairments in their order, those of `--impair` first.
    pub fn causes(&self) -> Vec<&Cause> {
        let mut causes: Vec<&Cause> = Vec::new();
        for cause in self.all.iter().filter_map(|cohort| cohort.impair.as_ref()) {
            if !causes.iter().any(|known| known.name == cause.name) {
                causes.push(cause);
            }
        }
        causes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CohortSize;

    fn cohort(name: &str, impair: Option<&str>) -> CohortSpec {
        let impair = impair.map(|spec| spec.parse().unwrap());
        CohortSpec { impair, ..CohortSpec::new(name.to_owned(), CohortSize::Share(0.4)) }
    }

    fn cohorts(specs: &[CohortSpec], impair: &[&str]) -> Cohorts {
        let impair: Vec<_> = impair.iter().map(|spec| spec.parse().unwrap()).collect();
        Cohorts::new(specs, &impair)
    }

    fn names(cohorts: &Cohorts) -> Vec<&str> {
        cohorts.all().iter().map(|cohort| cohort.name.as_str()).collect()
    }

    #[test]
    fn a_run_without_any_has_one() {
        let cohorts = cohorts(&[], &[]);
        assert!(cohorts.is_trivial());
        assert_eq!((cohorts.index_of(None, "sub-1-0", 1), cohorts.name(0)), (0, None));
        assert!(cohorts.causes().is_empty());
    }

    #[test]
    fn each_impair_chooses_its_share_and_the_rest_has_a_name() {
        let cohorts = cohorts(&[], &["cohort=25%,loss=1%", "cohort=25%,delay=9ms"]);
        assert_eq!(names(&cohorts), ["rest", "impair-1", "impair-2"]);
        let mut found = [0; 3];
        for number in 0..40 {
            let index = cohorts.index_of(None, &format!("stampede-0123abcd-sub-1-{number}"), 7);
            found[usize::from(index)] += 1;
        }
        assert!(found[0] >= 18 && found[1] >= 8 && found[2] >= 8, "{found:?}");
        let causes: Vec<_> = cohorts.causes().iter().map(|cause| cause.name.clone()).collect();
        assert_eq!(causes, ["impair-1", "impair-2"]);
    }

    #[test]
    fn a_cohort_with_an_impairment_of_its_own_is_left_alone_by_all_others() {
        let specs = [cohort("bad", Some("loss=3%")), cohort("low", None)];
        let cohorts = cohorts(&specs, &["delay=50ms"]);
        let all = ["rest", "impair-1", "bad", "bad+impair-1", "low", "low+impair-1"];
        assert_eq!(names(&cohorts), all);
        for number in 0..20 {
            let name = format!("sub-1-{number}");
            let of = |cohort| cohorts.name(cohorts.index_of(cohort, &name, 7));
            assert_eq!(of(Some(0)), Some("bad"));
            assert_eq!((of(Some(1)), of(None)), (Some("low+impair-1"), Some("impair-1")));
        }
        let causes: Vec<_> = cohorts.causes().iter().map(|cause| cause.spec.text()).collect();
        assert_eq!(causes, ["delay=50ms", "loss=3%"]);
    }

    #[test]
    fn who_an_impair_chooses_of_a_cohort_tells_what_the_cohort_does() {
        let silent =
            CohortSpec { feedback: Some(CongestionFeedback::None), ..cohort("silent", None) };
        let cohorts = cohorts(&[silent], &["delay=50ms"]);
        let told: Vec<_> = cohorts.all().iter().map(|cohort| cohort.feedback).collect();
        let none = Some(CongestionFeedback::None);
        assert_eq!(told, [None, None, none, none]);
    }
}
