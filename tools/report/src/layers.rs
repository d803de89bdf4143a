//! Which layer subscribers got, and whether it was the one that they asked for: a server that sends
//! everybody 180p carries many, and nobody wants to watch it.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stampede_core::watch::LayerTime;

use crate::bounds::LOWER_RATIO_MAX;
use crate::show::round;
use crate::watch_words::percent;

/// Most layers of a track told apart; time of further ones counts as that of the last.
const ROWS_MAX: usize = 32;

/// Which layers were on the screen.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct LayersSection {
    /// `lower_s / asked_s`; `null` where it is not known what was asked for.
    pub lower_ratio: Option<f64>,
    /// Time in which pictures were shown, and it is known how large they were and should have been.
    pub asked_s: f64,
    /// Of it the time in which they were smaller than what the subscriber asked for and the publisher
    /// offered.
    pub lower_s: f64,
    /// Why smaller pictures are not held against anybody: a rate was limited on purpose, say; `null` if
    /// they are.
    pub excused: Option<String>,
    /// Height of the pictures over the time in which they were shown; `null` where it is not known.
    pub height_px: Option<HeightPx>,
    /// By height of the picture, the largest first.
    pub heights: Vec<HeightRow>,
}

/// Heights over time, in pixels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct HeightPx {
    /// In 5 % of the time pictures were no larger.
    pub p5: u64,
    /// In half of the time pictures were no larger.
    pub p50: u64,
    /// Mean over time.
    pub mean: f64,
}

/// Pictures of one height.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct HeightRow {
    /// As `720p`; `unknown` where the stream did not say.
    pub name: String,
    /// In pixels, where known.
    pub height_px: Option<u64>,
    /// Time in which they were shown, of all subscribers and tracks together.
    pub shown_s: f64,
    /// Of the time of all heights.
    pub ratio: f64,
    /// How many could be shown.
    pub frames: u64,
    /// The same a second; `null` where they were shown for less than a second.
    pub fps: Option<f64>,
    /// By the highest temporal layer that came; empty where streams say nothing of temporal layers.
    pub temporal: Vec<TemporalRow>,
}

/// Pictures of one height while one temporal layer was the highest that came.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct TemporalRow {
    /// `t0` is the lowest layer alone.
    pub name: String,
    /// Time in which they were shown.
    pub shown_s: f64,
    /// Of the time of this height.
    pub ratio: f64,
    /// How many could be shown.
    pub frames: u64,
    /// The same a second; `null` where they were shown for less than a second.
    pub fps: Option<f64>,
}

/// Time of layers being added up.
#[derive(Debug, Clone, Default)]
pub struct LayerSums {
    rows: Vec<LayerTime>,
    asked: Duration,
    lower: Duration,
}

impl LayerSums {
    /// Nothing yet.
    pub const NONE: Self = Self { rows: Vec::new(), asked: Duration::ZERO, lower: Duration::ZERO };

    /// Adds what was shown of a track of which pictures of this height were `due`, where known.
    pub fn add(&mut self, shown: &[LayerTime], due: Option<u32>) {
        for one in shown {
            if let (Some(height), Some(due)) = (one.height, due) {
                self.asked += one.played;
                self.lower += if u32::from(height) < due { one.played } else { Duration::ZERO };
            }
            self.row(one);
        }
    }

    /// Adds another's.
    pub fn merge(&mut self, other: &Self) {
        self.asked += other.asked;
        self.lower += other.lower;
        other.rows.iter().for_each(|row| self.row(row));
    }

    fn row(&mut self, one: &LayerTime) {
        let same = |row: &LayerTime| (row.height, row.temporal) == (one.height, one.temporal);
        let full = self.rows.len() >= ROWS_MAX;
        let known = self.rows.iter().position(same).or(full.then_some(ROWS_MAX - 1));
        match known.and_then(|index| self.rows.get_mut(index)) {
            Some(row) => {
                row.played += one.played;
                row.frames += one.frames;
            }
            None => self.rows.push(*one),
        }
    }

    /// As the report has it.
    pub fn section(&self, excused: Option<&str>) -> LayersSection {
        let rows = self.rows.iter().map(|row| Row {
            height_px: row.height.map(u64::from),
            temporal: row.temporal.map(|layer| format!("t{layer}")),
            shown_s: row.played.as_secs_f64(),
            frames: row.frames,
        });
        let (asked_s, lower_s) = (self.asked.as_secs_f64(), self.lower.as_secs_f64());
        let excused = excused.map(str::to_owned);
        LayersSection { excused, ..LayersSection::of(rows, asked_s, lower_s) }
    }
}

/// Time of one height and temporal layer.
struct Row {
    height_px: Option<u64>,
    temporal: Option<String>,
    shown_s: f64,
    frames: u64,
}

fn share(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { round(part / whole, 6) } else { 0.0 }
}

/// Less is no rate: a picture that another size follows at once was shown for the time of a keyframe.
const FPS_S_MIN: f64 = 1.0;

fn fps(frames: u64, shown_s: f64) -> Option<f64> {
    (shown_s >= FPS_S_MIN).then(|| round(frames as f64 / shown_s, 2))
}

impl LayersSection {
    fn of(rows: impl Iterator<Item = Row>, asked_s: f64, lower_s: f64) -> Self {
        type Sums = (f64, u64);
        let mut heights: BTreeMap<Option<u64>, (Sums, BTreeMap<String, Sums>)> = BTreeMap::new();
        let mut all_s = 0.0;
        for row in rows {
            let (sums, temporal) = heights.entry(row.height_px).or_default();
            let layer = row.temporal.map(|name| temporal.entry(name).or_default());
            for sums in [Some(sums), layer].into_iter().flatten() {
                sums.0 += row.shown_s;
                sums.1 += row.frames;
            }
            all_s += row.shown_s;
        }
        let known = heights.iter().filter_map(|(height, (sums, _))| Some(((*height)?, sums.0)));
        let height_px = HeightPx::of(&known.collect::<Vec<_>>());
        let heights =
            heights.into_iter().rev().map(|(height_px, ((shown_s, frames), temporal))| {
                let temporal = temporal.into_iter().map(|(name, (layer_s, frames))| TemporalRow {
                    name,
                    shown_s: round(layer_s, 3),
                    ratio: share(layer_s, shown_s),
                    frames,
                    fps: fps(frames, layer_s),
                });
                HeightRow {
                    name: height_px.map_or("unknown".to_owned(), |height| format!("{height}p")),
                    height_px,
                    shown_s: round(shown_s, 3),
                    ratio: share(shown_s, all_s),
                    frames,
                    fps: fps(frames, shown_s),
                    temporal: temporal.collect(),
                }
            });
        Self {
            lower_ratio: (asked_s > 0.0).then(|| share(lower_s, asked_s)),
            asked_s: round(asked_s, 3),
            lower_s: round(lower_s, 3),
            excused: None,
            height_px,
            heights: heights.collect(),
        }
    }

    /// Of several hosts.
    pub fn merged<'a>(all: impl Iterator<Item = &'a Self> + Clone) -> Self {
        let rows = all.clone().flat_map(|section| &section.heights).flat_map(|row| {
            let temporal = row.temporal.iter().map(|layer| Row {
                height_px: row.height_px,
                temporal: Some(layer.name.clone()),
                shown_s: layer.shown_s,
                frames: layer.frames,
            });
            let layered_s: f64 = row.temporal.iter().map(|layer| layer.shown_s).sum();
            let layered: u64 = row.temporal.iter().map(|layer| layer.frames).sum();
            // What said nothing of temporal layers.
            let rest = Row {
                height_px: row.height_px,
                temporal: None,
                shown_s: (row.shown_s - layered_s).max(0.0),
                frames: row.frames.saturating_sub(layered),
            };
            temporal.chain([rest])
        });
        let asked_s = all.clone().map(|section| section.asked_s).sum();
        let lower_s = all.clone().map(|section| section.lower_s).sum();
        let excused = all.clone().find_map(|section| section.excused.clone());
        Self { excused, ..Self::of(rows, asked_s, lower_s) }
    }

    /// Pictures were smaller than asked for most of the time, and nothing excuses it: whatever was
    /// carried is not what was asked for.
    pub fn is_mostly_lower(&self) -> bool {
        self.excused.is_none() && self.lower_ratio.is_some_and(|ratio| ratio > LOWER_RATIO_MAX)
    }

    /// `720p 92.30 % at 25.0 fps, 180p 7.70 % at 15.0 fps; smaller than asked for 7.70 % of the time`;
    /// `None` where no picture was shown.
    pub fn summary(&self) -> Option<String> {
        let shown = self.heights.iter().filter(|row| row.shown_s > 0.0);
        let words = shown.map(|row| {
            let fps = row.fps.map(|fps| format!(" at {fps:.1} fps")).unwrap_or_default();
            format!("{} {}{fps}", row.name, percent(row.ratio))
        });
        let mut text = words.collect::<Vec<_>>().join(", ");
        if text.is_empty() {
            return None;
        }
        if let Some(ratio) = self.lower_ratio.filter(|ratio| *ratio > 0.0) {
            text += &format!("; smaller than asked for {} of the time", percent(ratio));
        }
        Some(text)
    }
}

impl HeightPx {
    /// `heights` with how long each was shown, in rising order.
    fn of(heights: &[(u64, f64)]) -> Option<Self> {
        let all_s: f64 = heights.iter().map(|(_, shown_s)| shown_s).sum();
        let (highest, _) = *heights.last().filter(|_| all_s > 0.0)?;
        let at = |share: f64| {
            let mut sum_s = 0.0;
            let reached = heights.iter().find(|(_, shown_s)| {
                sum_s += shown_s;
                sum_s >= share * all_s
            });
            reached.map_or(highest, |(height, _)| *height)
        };
        let mean = heights.iter().map(|(height, shown_s)| *height as f64 * shown_s).sum::<f64>();
        Some(Self { p5: at(0.05), p50: at(0.5), mean: round(mean / all_s, 1) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(height: u16, temporal: Option<u8>, seconds: u64, fps: u64) -> LayerTime {
        LayerTime {
            height: Some(height),
            temporal,
            played: Duration::from_secs(seconds),
            frames: fps * seconds,
        }
    }

    #[test]
    fn what_is_smaller_than_asked_for_is_told_from_what_was_asked_for() {
        let mut sums = LayerSums::default();
        // A grid asks for 180p, the main speaker's for 720p; of a third nobody knows what is offered.
        sums.add(&[time(180, None, 40, 15)], Some(180));
        sums.add(&[time(720, None, 30, 25), time(180, None, 10, 15)], Some(720));
        sums.add(&[time(360, None, 20, 25)], None);
        let section = sums.section(None);
        assert_eq!((section.asked_s, section.lower_s), (80.0, 10.0));
        assert_eq!(section.lower_ratio, Some(0.125));
        let rows: Vec<_> =
            section.heights.iter().map(|row| (row.name.as_str(), row.shown_s, row.fps)).collect();
        let wanted =
            [("720p", 30.0, Some(25.0)), ("360p", 20.0, Some(25.0)), ("180p", 50.0, Some(15.0))];
        assert_eq!(rows, wanted);
        assert_eq!(section.height_px, Some(HeightPx { p5: 180, p50: 180, mean: 378.0 }));
        assert_eq!(
            section.summary().unwrap(),
            "720p 30.00 % at 25.0 fps, 360p 20.00 % at 25.0 fps, 180p 50.00 % at 15.0 fps; smaller \
             than asked for 12.50 % of the time"
        );
        assert_eq!(LayerSums::default().section(None), LayersSection::default());
    }

    #[test]
    fn what_was_shown_for_a_moment_has_no_rate() {
        let mut sums = LayerSums::default();
        let moment = LayerTime { played: Duration::from_millis(3), ..time(180, Some(0), 0, 0) };
        sums.add(&[LayerTime { frames: 11, ..moment }, time(720, Some(0), 1, 25)], Some(720));
        let rows = sums.section(None).heights;
        let rates: Vec<_> = rows.iter().map(|row| (row.fps, row.temporal[0].fps)).collect();
        assert_eq!(rates, [(Some(25.0), Some(25.0)), (None, None)]);
        assert_eq!((rows[1].frames, rows[1].shown_s), (11, 0.003));
    }

    #[test]
    fn hosts_are_added_up_with_their_temporal_layers() {
        let mut one = LayerSums::default();
        one.add(&[time(360, Some(2), 30, 30), time(360, Some(0), 10, 8)], Some(360));
        let mut other = LayerSums::default();
        other.add(&[time(360, None, 40, 30), time(180, Some(0), 20, 8)], Some(360));
        let mut both = one.clone();
        both.merge(&other);
        let sections = [one.section(Some("limited")), other.section(None)];
        let merged = LayersSection::merged(sections.iter());
        assert_eq!(merged, both.section(Some("limited")));
        let temporal = &merged.heights[0].temporal;
        let told: Vec<_> = temporal.iter().map(|row| (row.name.as_str(), row.ratio)).collect();
        assert_eq!(told, [("t0", 0.125), ("t2", 0.375)], "the rest said nothing of them");
    }
}
