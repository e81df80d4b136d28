//! Faults: what can go wrong with a request, which request it happens to, and what was drawn. A script draws from a
//! generator by seed, kind and the how-manieth of that kind it is, so that requests running side by side do not
//! change each other's fate.

use std::collections::BTreeMap;

use super::clock::scramble;

/// One way for a request to go wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// 401, and the access token that was shown is dead from then on.
    Unauthorized,
    /// 403 with the reason `userRateLimitExceeded`.
    UserRateLimit,
    /// 403 with the reason `rateLimitExceeded`.
    RateLimit,
    /// 429 with `Retry-After` of so many seconds.
    TooMany(u64),
    /// This status, such as 500, 502 or 503, with an error of the fitting form.
    Status(u16),
    /// This status with this reason, such as 403 with `appNotAuthorizedToFile`.
    Refused(u16, String),
    /// The connection closes before any answer, and the request is not carried out.
    CloseBefore,
    /// The request is carried out, then the connection closes before any answer.
    CloseAfter,
    /// Of an upload's part so many percent, rounded down to 256 KiB, are stored; then the connection closes.
    PartBroken(u8),
    /// Of an upload's part so many percent, rounded down to 256 KiB, are stored, and the answer says so.
    PartShort(u8),
    /// The upload's session is gone for good: 404 or 410.
    SessionGone(u16),
    /// The connection breaks after so many percent of a download.
    MediaCut(u8),
    /// The request is carried out, but only after so many milliseconds.
    Slow(u64),
}

/// A fault that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drawn {
    /// The how-manieth request of all it was, counted from one: its line in the log.
    pub request: usize,
    /// The kind of that request.
    pub kind: String,
    /// What happened.
    pub fault: Fault,
    /// Whether the script drew it; if not, the test had ordered it.
    pub scripted: bool,
}

/// All faults that are planned, and those that were.
#[derive(Default)]
pub(super) struct Faults {
    script: Option<(u64, f64)>,
    only: Option<Vec<String>>,
    most: Option<usize>,
    in_a_row: Option<u32>,
    ordered: Vec<(String, Fault, usize)>,
    seen: BTreeMap<String, u64>,
    runs: BTreeMap<String, u32>,
    scripted: usize,
    pub(super) drawn: Vec<Drawn>,
}

impl Faults {
    pub(super) fn set_script(&mut self, script: Option<(u64, f64)>) {
        self.script = script;
        self.seen.clear();
        self.runs.clear();
        self.scripted = 0;
    }

    pub(super) fn set_only(&mut self, kinds: &[&str]) {
        self.only = (!kinds.is_empty()).then(|| kinds.iter().map(|&kind| kind.to_owned()).collect());
    }

    pub(super) fn set_most(&mut self, most: usize) {
        self.most = Some(most);
    }

    pub(super) fn set_in_a_row(&mut self, most: u32) {
        self.in_a_row = Some(most);
    }

    pub(super) fn order(&mut self, kind: &str, fault: Fault, times: usize) {
        self.ordered.push((kind.to_owned(), fault, times));
    }

    pub(super) fn clear(&mut self) {
        self.ordered.clear();
        self.script = None;
    }

    /// How many ordered faults have not happened yet.
    pub(super) fn pending(&self) -> usize {
        self.ordered.iter().map(|(_, _, times)| times).sum()
    }

    /// What happens to this request: what a test has ordered comes first, then the script. `kinds` are the kind and
    /// the finer one, when there is one.
    pub(super) fn draw(&mut self, request: usize, kinds: &[&str]) -> Option<Fault> {
        let kind = *kinds.last()?;
        let fits = |wanted: &str| wanted == "*" || kinds.contains(&wanted);
        let ordered = self.ordered.iter_mut().find(|(wanted, _, times)| *times > 0 && fits(wanted));
        let (fault, scripted) = if let Some((_, fault, times)) = ordered {
            *times -= 1;
            (Some(fault.clone()), false)
        } else {
            (self.scripted_fault(kind, kinds), true)
        };
        self.ordered.retain(|(_, _, times)| *times > 0);
        if let Some(fault) = &fault {
            self.drawn.push(Drawn { request, kind: kind.to_owned(), fault: fault.clone(), scripted });
        }
        fault
    }

    fn scripted_fault(&mut self, kind: &str, kinds: &[&str]) -> Option<Fault> {
        let (seed, rate) = self.script?;
        let number = self.seen.entry(kind.to_owned()).or_default();
        *number += 1;
        let of_kind = kind.bytes().fold(seed, |sum, byte| scramble(sum ^ u64::from(byte)));
        let dice = scramble(of_kind ^ *number);
        let wanted = self.only.as_ref().is_none_or(|only| only.iter().any(|one| kinds.contains(&one.as_str())));
        let used_up = self.most.is_some_and(|most| self.scripted >= most);
        let run = self.runs.entry(kind.to_owned()).or_default();
        let too_long = self.in_a_row.is_some_and(|most| *run >= most);
        let hit = ((dice >> 11) as f64 / (1_u64 << 53) as f64) < rate;
        let fault = (wanted && !used_up && !too_long && hit).then(|| pick(kind, scramble(dice))).flatten();
        *run = if fault.is_some() { *run + 1 } else { 0 };
        self.scripted += usize::from(fault.is_some());
        fault
    }
}

/// One of the faults that can befall a request of this kind.
fn pick(kind: &str, dice: u64) -> Option<Fault> {
    let more = scramble(dice);
    let percent = (more % 101) as u8;
    let mut all = vec![
        Fault::Status(500),
        Fault::Status(502),
        Fault::Status(503),
        Fault::CloseBefore,
        Fault::Slow(10 + more % 90),
    ];
    if kind == "auth" || kind == "other" {
        return None;
    }
    let oauth = kind.starts_with("token") || kind == "device.code" || kind == "revoke";
    // A code that was used up without an answer is lost for good, which no client can mend.
    if !oauth || kind == "token.refresh" {
        all.push(Fault::CloseAfter);
    }
    if !oauth {
        all.extend([Fault::Unauthorized, Fault::UserRateLimit, Fault::RateLimit, Fault::TooMany(more % 2)]);
    }
    let gone = Fault::SessionGone(if more.is_multiple_of(2) { 404 } else { 410 });
    match kind {
        "upload.put" => all.extend([
            Fault::PartBroken(percent),
            Fault::PartBroken(percent),
            Fault::PartShort(percent),
            Fault::PartShort(percent),
            gone,
        ]),
        "upload.query" => all.push(gone),
        "files.media" => all.extend([Fault::MediaCut(percent), Fault::MediaCut(percent), Fault::MediaCut(percent)]),
        _ => {}
    }
    let at = (dice % all.len() as u64) as usize;
    Some(all.swap_remove(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_repeats_and_ends() {
        let run = |most: usize| {
            let mut faults = Faults::default();
            faults.set_script(Some((7, 0.5)));
            faults.set_most(most);
            (0..200).map(|n| faults.draw(n, &["upload.put"])).collect::<Vec<_>>()
        };
        assert_eq!(run(1000), run(1000));
        assert_eq!(run(5).iter().flatten().count(), 5);
        let many = run(1000).iter().flatten().count();
        assert!((60..140).contains(&many), "{many}");
    }

    #[test]
    fn runs_are_bounded() {
        let mut faults = Faults::default();
        faults.set_script(Some((1, 1.0)));
        faults.set_in_a_row(2);
        let drawn: Vec<bool> = (0..6).map(|n| faults.draw(n, &["files.list"]).is_some()).collect();
        assert_eq!(drawn, [true, true, false, true, true, false]);
    }

    #[test]
    fn ordered_ones_come_first() {
        let mut faults = Faults::default();
        faults.order("token", Fault::Status(503), 1);
        assert_eq!(faults.draw(1, &["files.list"]), None);
        assert_eq!(faults.draw(2, &["token", "token.refresh"]), Some(Fault::Status(503)));
        assert_eq!(faults.draw(3, &["token", "token.refresh"]), None);
        assert_eq!(faults.drawn.len(), 1);
    }
}
