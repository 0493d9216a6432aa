//! Long work of replication on a terminal: a bar for the table being copied, one for all of them, and one for rules
//! being built.

use indicatif::{HumanBytes, HumanCount, MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::replication::{
    CopyStage, CopyStatus, RebuildStatus,
    copy_status::{current, seconds_left},
};

/// Names one who looks at them; lines of a table are as long as the terminal allows.
const STYLE: &str = "{bar:24} {percent:>3} %  {msg}";

/// The bars. There are none while nothing is copied, and none where there is no terminal.
#[derive(Debug)]
pub struct CopyBars {
    screen: MultiProgress,
    current: Option<ProgressBar>,
    all: Option<ProgressBar>,
    rebuild: Option<ProgressBar>,
}

impl CopyBars {
    /// On the terminal behind standard error.
    pub fn new() -> Self {
        let screen = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        Self { screen, current: None, all: None, rebuild: None }
    }

    /// To print lines without tearing the bars.
    pub fn screen(&self) -> MultiProgress {
        self.screen.clone()
    }

    /// Draws how far the copies are, and the rules being built.
    pub fn show(&mut self, copies: &[CopyStatus], rebuild: Option<&RebuildStatus>) {
        let position = current(copies).map(|copy| (copy.bytes_done, copy.bytes_total, describe(copy)));
        draw(&self.screen, &mut self.current, position);
        let (done, total) = copies.iter().fold((0_u64, 0_u64), |(done, total), copy| {
            (done.saturating_add(copy.bytes_done), total.saturating_add(copy.bytes_total))
        });
        let all = (copies.len() > 1).then(|| (done, total, describe_all(copies)));
        draw(&self.screen, &mut self.all, all);
        let rebuild = rebuild.map(|rebuild| {
            let (done, left) = (rebuild.rows_done, rebuild.rows_left());
            (done, done.saturating_add(left), describe_rebuild(rebuild))
        });
        draw(&self.screen, &mut self.rebuild, rebuild);
    }
}

impl Default for CopyBars {
    fn default() -> Self {
        Self::new()
    }
}

fn draw(screen: &MultiProgress, place: &mut Option<ProgressBar>, position: Option<(u64, u64, String)>) {
    let Some((done, total, message)) = position else {
        if let Some(bar) = place.take() {
            bar.finish_and_clear();
            screen.remove(&bar);
        }
        return;
    };
    let bar = place.get_or_insert_with(|| {
        let style = ProgressStyle::with_template(STYLE).expect("a constant, valid template");
        screen.add(ProgressBar::new(total).with_style(style))
    });
    bar.set_length(total);
    bar.set_position(done);
    bar.set_message(message);
}

/// How far one table is, in a line without a bar.
pub fn describe(copy: &CopyStatus) -> String {
    let CopyStatus { table, rows_done, rows_estimated, bytes_done, bytes_total, .. } = copy;
    let bytes = format!("{} of {}", HumanBytes(*bytes_done), HumanBytes(*bytes_total));
    let rows = if *rows_estimated > 0 {
        format!("{} of about {} rows", HumanCount(*rows_done), HumanCount(*rows_estimated))
    } else {
        format!("{} rows", HumanCount(*rows_done))
    };
    match copy.stage {
        CopyStage::Waiting => format!("{table}: waits for its turn, {}", HumanBytes(*bytes_total)),
        CopyStage::WaitingForStream => format!("{table}: {bytes}, {rows}; waits for the stream, which is behind"),
        CopyStage::Copying => format!("{table}: {bytes}, {rows}{}", left(copy.seconds_left)),
        CopyStage::Finishing => format!("{table}: read; rows that are gone are being forgotten"),
    }
}

/// How far all tables are.
pub fn describe_all(copies: &[CopyStatus]) -> String {
    let bytes_left = copies.iter().map(CopyStatus::bytes_left).sum();
    format!("{} tables, {} to go{}", copies.len(), HumanBytes(bytes_left), left(seconds_left(copies)))
}

/// How far rules being built are.
pub fn describe_rebuild(rebuild: &RebuildStatus) -> String {
    let RebuildStatus { deployment, rows_done, rows_estimated, tables_left } = rebuild;
    if *tables_left == 0 {
        return format!("rules {deployment}: built; clients get them when new tables are copied");
    }
    let (done, all) = (HumanCount(*rows_done), HumanCount(*rows_estimated));
    format!("rules {deployment}: {done} of about {all} stored rows evaluated, tables left: {tables_left}")
}

fn left(seconds: Option<u64>) -> String {
    match seconds {
        None => String::new(),
        Some(seconds @ 0..100) => format!(", {seconds} s left"),
        Some(seconds @ 100..6_000) => format!(", {} min left", seconds / 60),
        Some(seconds) => format!(", {} h left", seconds / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(stage: CopyStage) -> CopyStatus {
        CopyStatus {
            table: "public.items".to_owned(),
            stage,
            rows_done: 1_200,
            rows_estimated: 4_000,
            bytes_done: 1 << 20,
            bytes_total: 3 << 20,
            seconds_left: Some(150),
        }
    }

    #[test]
    fn a_line_says_what_is_done_and_what_is_waited_for() {
        assert_eq!(
            describe(&copy(CopyStage::Copying)),
            "public.items: 1.00 MiB of 3.00 MiB, 1,200 of about 4,000 rows, 2 min left"
        );
        assert!(describe(&copy(CopyStage::WaitingForStream)).ends_with("waits for the stream, which is behind"));
        assert_eq!(describe(&copy(CopyStage::Waiting)), "public.items: waits for its turn, 3.00 MiB");
        let rebuild =
            |tables_left| RebuildStatus { deployment: 3, rows_done: 1_000, rows_estimated: 5_000, tables_left };
        let expected = "rules 3: 1,000 of about 5,000 stored rows evaluated, tables left: 2";
        assert_eq!(describe_rebuild(&rebuild(2)), expected);
        assert!(describe_rebuild(&rebuild(0)).starts_with("rules 3: built; "));
        let all = describe_all(&[copy(CopyStage::Copying), copy(CopyStage::Waiting)]);
        assert_eq!(all, "2 tables, 4.00 MiB to go, 5 min left");
    }
}
