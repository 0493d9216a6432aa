//! A household to play with: its people, their habits and a year of completions. The same every time.

use std::ops::Range;

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::index};
use serde_json::json;
use tokio_postgres::{Client, Error, Transaction};

/// Days of history.
const DAYS: usize = 365;
const HABITS_PER_ROUTINE: usize = 4;
const HABITS_PER_RECOVERY: usize = 5;
/// Any number; fixed, so that two seeded databases are equal.
const SEED: u64 = 2026;
/// Rows of one insert. Bounds the memory of a large household.
const ROWS_PER_INSERT: usize = 10_000;

const HABITS: [(&str, &str, &str); 10] = [
    ("Drink water", "💧", "#2196f3"),
    ("Read ten pages", "📖", "#795548"),
    ("Morning walk", "🚶", "#4caf50"),
    ("Stretch", "🤸", "#ff9800"),
    ("Practise guitar", "🎸", "#9c27b0"),
    ("Write a diary", "✍️", "#607d8b"),
    ("No phone in bed", "📵", "#f44336"),
    ("Meditate", "🧘", "#00bcd4"),
    ("Cook at home", "🍳", "#ffc107"),
    ("Call a friend", "☎️", "#e91e63"),
];

/// How large a household to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Household {
    /// User ids. The first is the administrator.
    pub users: Vec<String>,
    /// Habits of all users together.
    pub habits: usize,
    /// Completions of all habits together; at most one a day and habit fits into the year.
    pub completions: usize,
}

impl Default for Household {
    fn default() -> Self {
        Self { users: ["anna", "ben", "chris"].map(str::to_owned).to_vec(), habits: 100, completions: 20_000 }
    }
}

/// How many rows were made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seeded {
    /// In `users`.
    pub users: usize,
    /// In `habits`.
    pub habits: usize,
    /// In `completions`.
    pub completions: usize,
    /// In `routines`.
    pub routines: usize,
    /// In `routine_habits`.
    pub routine_habits: usize,
    /// In `recovery_sessions`.
    pub recovery_sessions: usize,
}

/// Fills the sample schema, which must be empty of these users. Works for the owner of the tables, whom row-level
/// security binds as well: each user's rows are written in a transaction with that user's claims.
///
/// # Errors
/// What Postgres says; users before the failed one stay.
pub async fn seed(client: &mut Client, household: &Household) -> Result<Seeded, Error> {
    seed_people(client, household).await?;
    let mut random = StdRng::seed_from_u64(SEED);
    let mut seeded = Seeded { users: household.users.len(), ..Seeded::default() };
    for (index, user) in household.users.iter().enumerate() {
        let habits: Vec<String> =
            share(household.habits, household.users.len(), index).map(|n| format!("{user}-habit-{n:03}")).collect();
        let tx = client.transaction().await?;
        let claims = json!({ "sub": user }).to_string();
        tx.execute("SELECT set_config('request.jwt.claims', $1, true)", &[&claims]).await?;
        seed_habits(&tx, user, &habits).await?;
        seeded.habits += habits.len();
        for (n, habit) in share(household.habits, household.users.len(), index).zip(&habits) {
            let count = share(household.completions, household.habits, n).len().min(DAYS);
            seed_completions(&tx, &mut random, habit, count).await?;
            seeded.completions += count;
        }
        let (routines, links) = seed_routines(&tx, user, &habits).await?;
        seeded.routines += routines;
        seeded.routine_habits += links;
        seeded.recovery_sessions += seed_recovery(&tx, &mut random, &habits).await?;
        tx.commit().await?;
    }
    Ok(seeded)
}

/// The numbers that fall to the `index`th of `parts`, as evenly as possible.
fn share(total: usize, parts: usize, index: usize) -> Range<usize> {
    let parts = parts.max(1);
    total * index / parts..total * (index + 1) / parts
}

async fn seed_people(client: &mut Client, household: &Household) -> Result<(), Error> {
    let tx = client.transaction().await?;
    tx.execute("INSERT INTO households (id, name) VALUES ('home', 'Home')", &[]).await?;
    tx.execute(
        "INSERT INTO users (id, display_name, time_zone) SELECT id, initcap(id), 'Europe/Berlin' FROM unnest($1::text[]) id",
        &[&household.users],
    )
    .await?;
    tx.execute(
        "INSERT INTO household_members (id, household_id, user_id, role)
         SELECT 'home-' || id, 'home', id, CASE n WHEN 1 THEN 'admin' ELSE 'member' END
         FROM unnest($1::text[]) WITH ORDINALITY u (id, n)",
        &[&household.users],
    )
    .await?;
    tx.commit().await
}

async fn seed_habits(tx: &Transaction<'_>, user: &str, habits: &[String]) -> Result<(), Error> {
    let kinds: Vec<_> = habits.iter().enumerate().map(|(n, _)| HABITS[n % HABITS.len()]).collect();
    let names: Vec<&str> = kinds.iter().map(|kind| kind.0).collect();
    let icons: Vec<&str> = kinds.iter().map(|kind| kind.1).collect();
    let colors: Vec<&str> = kinds.iter().map(|kind| kind.2).collect();
    tx.execute(
        "INSERT INTO habits (id, user_id, name, description, icon, color, schedule, target_per_day, position, archived,
                             created_at, updated_at)
         SELECT id, $1, name, 'Every day counts', icon, color,
                CASE WHEN n % 3 = 0 THEN '{\"weekdays\": [1, 3, 5]}' ELSE '{\"every\": \"day\"}' END::jsonb,
                CASE WHEN n % 10 = 1 THEN 8 ELSE 1 END, n, n % 20 = 0,
                current_date - 365, current_date - 365
         FROM unnest($2::text[], $3::text[], $4::text[], $5::text[]) WITH ORDINALITY h (id, name, icon, color, n)",
        &[&user, &habits, &names, &icons, &colors],
    )
    .await?;
    Ok(())
}

/// Completes a habit on `count` different days of the year that ends yesterday: today is for the demo to play.
async fn seed_completions(tx: &Transaction<'_>, random: &mut StdRng, habit: &str, count: usize) -> Result<(), Error> {
    let mut days_ago: Vec<i32> =
        index::sample(random, DAYS, count).into_iter().map(|day| i32::try_from(day + 1).unwrap_or(1)).collect();
    days_ago.sort_unstable_by(|a, b| b.cmp(a));
    let minutes: Vec<i32> = days_ago.iter().map(|_| random.random_range(6 * 60..23 * 60)).collect();
    for (days_ago, minutes) in days_ago.chunks(ROWS_PER_INSERT).zip(minutes.chunks(ROWS_PER_INSERT)) {
        tx.execute(
            "INSERT INTO completions (id, habit_id, completed_on, completed_at, amount, note, created_at)
             SELECT $1 || '-day-' || lpad(days_ago::text, 3, '0'), $1, current_date - days_ago, moment, 1,
                    CASE WHEN days_ago % 30 = 0 THEN 'A good month' END, moment
             FROM unnest($2::int[], $3::int[]) c (days_ago, minute),
                  LATERAL (SELECT (current_date - days_ago) + make_interval(mins => minute) AS moment) m",
            &[&habit, &days_ago, &minutes],
        )
        .await?;
    }
    Ok(())
}

async fn seed_routines(tx: &Transaction<'_>, user: &str, habits: &[String]) -> Result<(usize, usize), Error> {
    let mut links = 0;
    let groups: Vec<&[String]> = habits.chunks(HABITS_PER_ROUTINE).collect();
    for (n, group) in groups.iter().enumerate() {
        let routine = format!("{user}-routine-{n:03}");
        tx.execute(
            "INSERT INTO routines (id, user_id, name, starts_at, created_at, updated_at)
             SELECT $1, $2, 'Routine ' || $3::int, time '06:00' + make_interval(mins => 30 * ($3 % 30)),
                    current_date - 365, current_date - 365",
            &[&routine, &user, &i32::try_from(n + 1).unwrap_or(1)],
        )
        .await?;
        tx.execute(
            "INSERT INTO routine_habits (id, routine_id, habit_id, position)
             SELECT $1 || '-' || n, $1, habit, n FROM unnest($2::text[]) WITH ORDINALITY h (habit, n)",
            &[&routine, group],
        )
        .await?;
        links += group.len();
    }
    Ok((groups.len(), links))
}

async fn seed_recovery(tx: &Transaction<'_>, random: &mut StdRng, habits: &[String]) -> Result<usize, Error> {
    let chosen: Vec<&String> = habits.iter().step_by(HABITS_PER_RECOVERY).collect();
    let days_ago: Vec<i32> = chosen.iter().map(|_| random.random_range(10..300)).collect();
    tx.execute(
        "INSERT INTO recovery_sessions (id, habit_id, reason, started_at, ended_at, created_at)
         SELECT habit || '-recovery', habit, 'Travel', current_date - days_ago, current_date - days_ago + 7,
                current_date - days_ago
         FROM unnest($1::text[], $2::int[]) r (habit, days_ago)",
        &[&chosen, &days_ago],
    )
    .await?;
    Ok(chosen.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_and_differ_by_one_at_most() {
        let parts: Vec<_> = (0..3).map(|index| share(100, 3, index).len()).collect();
        assert_eq!(parts.iter().sum::<usize>(), 100);
        assert_eq!(parts, [33, 33, 34]);
        assert!(share(5, 0, 0).len() == 5, "nobody to share with is no division by zero");
    }
}
