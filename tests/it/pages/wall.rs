//! The mirror as somebody sees it from three metres: whole, in large letters, on whatever screen hangs there.

use kairos_tests::{
    browser::Tab,
    service::{TestService, eventually},
};
use serde_json::json;

use super::mirror::{household_with, page};

/// Everything of everybody.
const HOME: &str = "bucket_definitions: {home: {data: [SELECT * FROM habits, SELECT * FROM completions,
    SELECT * FROM routines, SELECT * FROM routine_habits, SELECT * FROM users]}}";

/// Screens on walls, and a laptop's.
const WALLS: [(&str, u32, u32); 4] =
    [("720p", 1280, 720), ("1080p", 1920, 1080), ("4k", 3840, 2160), ("portrait", 1080, 1920)];
const PHONES: [(&str, u32, u32); 2] = [("small", 320, 640), ("phone", 390, 844)];

/// Letters of a habit are at least so large a part of the screen's shorter side.
const LETTERS: f64 = 1.0 / 45.0;

/// What is wrong with how the page lies on the screen: words cut in two although they fit a line, something that sticks out
/// of what it is in, and whether the page is larger than the screen.
const FLAWS: &str = "(() => {
    const flaws = [];
    const { scrollWidth, scrollHeight, clientWidth } = document.documentElement;
    if (scrollWidth > clientWidth) flaws.push(`sideways: ${scrollWidth} of ${clientWidth}`);
    const texts = document.createTreeWalker(document.getElementById('screen-mirror'), NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
        const text = texts.currentNode;
        const parent = text.parentElement;
        if (!parent.checkVisibility() || parent.closest('.hidden, svg')) continue;
        for (const { 0: word, index } of text.data.matchAll(/[^\\s-]+-?/g)) {
            const range = new Range();
            range.setStart(text, index);
            range.setEnd(text, index + word.length);
            const parts = [...range.getClientRects()].filter(({ width }) => width > 0);
            const whole = parts.reduce((sum, { width }) => sum + width, 0);
            const line = parent.closest('.text, h2, p, button, div').getBoundingClientRect();
            if (parts.length > 1 && whole <= line.width) flaws.push(`broken: ${word}`);
            if (parts.some(({ right }) => right > line.right + 1)) flaws.push(`sticks out: ${word}`);
        }
    }
    return { flaws, high: scrollHeight > innerHeight ? scrollHeight : 0 };
})()";

async fn size(tab: &Tab, width: u32, height: u32) {
    tab.call(json!({"do": "size", "width": width, "height": height})).await;
}

/// Waits until the page lies well on a wall of this size.
async fn lies_well(tab: &Tab, (name, width, height): (&str, u32, u32)) {
    size(tab, width, height).await;
    let seen = async || (name, tab.evaluate(FLAWS).await);
    eventually((name, json!({"flaws": [], "high": 0})), seen).await;
    let letters = tab.evaluate("parseFloat(getComputedStyle(document.querySelector('.habit .name')).fontSize)").await;
    let least = f64::from(width.min(height)) * LETTERS;
    assert!(letters.as_f64().is_some_and(|px| px >= least), "{name}: letters of {letters} px, not {least}");
}

/// A hand scrolls down, and nowhere else.
async fn lies_well_in_a_hand(tab: &Tab, (name, width, height): (&str, u32, u32)) {
    size(tab, width, height).await;
    let flaws = async || (name, tab.evaluate(FLAWS).await["flaws"].take());
    eventually((name, json!([])), flaws).await;
}

/// Each habit is to be done every day, so that the weekday makes no difference.
const EVERY_DAY: &str = "UPDATE habits SET schedule = '{}', archived = false";

async fn wall(service: &TestService, address: &str) -> Tab {
    let tab = Tab::open(service.folder.path()).await;
    tab.go(&format!("{}{address}#token={}", page(service), service.token("wall"))).await;
    tab.shows("#indicator", "Synced").await;
    tab
}

#[tokio::test]
async fn a_household_of_two_with_twelve_habits_each_is_seen_whole() {
    let service = household_with(HOME).await;
    service.run(EVERY_DAY).await;
    service
        .run(
            "INSERT INTO completions (id, habit_id, completed_on)
              SELECT id || n, id, current_date - n FROM habits, generate_series(0, 120) n WHERE position % 2 = 0
              ON CONFLICT DO NOTHING",
        )
        .await;
    let tab = wall(&service, "?readonly").await;
    eventually(24, async || tab.texts(".habit .name").await.len()).await;
    let days = "SELECT count(DISTINCT completed_on) FROM completions WHERE completed_on > current_date - 371";
    let days: i64 = service.sql.query_one(days, &[]).await.expect("answers").get(0);
    let green = async || tab.evaluate("document.querySelectorAll('#year rect:not(.level-0)').length").await;
    eventually(json!(days), green).await;
    tab.shows("#next", "Routine").await;
    tab.shows("#next", "(").await;
    for screen in WALLS {
        lies_well(&tab, screen).await;
    }
    tab.picture("wall", &WALLS).await;
    tab.picture("wall", &PHONES).await;
    for screen in PHONES {
        lies_well_in_a_hand(&tab, screen).await;
    }

    // Where it is touched it has buttons, and is no larger.
    tab.go(&page(&service)).await;
    eventually(24, async || tab.texts("button.habit .name").await.len()).await;
    for screen in WALLS {
        lies_well(&tab, screen).await;
    }
    tab.is_accessible().await;

    // Long names take more lines, and a word that is longer than a line more than one.
    service
        .run(
            "UPDATE habits SET name = 'Finish the quarterly presentation for the committee' WHERE id = 'anna-habit-002';
             UPDATE habits SET name = 'Donaudampfschifffahrtsgesellschaft' WHERE id = 'ben-habit-013';
             UPDATE users SET display_name = 'Benjamin Alexander von Hohenstein-Wittelsbach' WHERE id = 'ben'",
        )
        .await;
    tab.shows("#members", "Hohenstein").await;
    tab.shows("#members", "Donau").await;
    for screen in WALLS {
        lies_well(&tab, screen).await;
    }
    tab.picture("wall-long", &WALLS).await;
    for screen in PHONES {
        lies_well_in_a_hand(&tab, screen).await;
    }

    // Of three times as many, a hand scrolls to the last; where there is none, all are seen, though smaller.
    service
        .run(
            "INSERT INTO habits (id, user_id, name, icon, color, schedule, target_per_day, position, archived)
             SELECT id || n, user_id, name, icon, color, schedule, target_per_day, position, archived
             FROM habits, generate_series(1, 2) n",
        )
        .await;
    size(&tab, 1920, 1080).await;
    tab.go(&format!("{}?readonly", page(&service))).await;
    eventually(72, async || tab.texts(".habit .name").await.len()).await;
    eventually(json!({"flaws": [], "high": 0}), async || tab.evaluate(FLAWS).await).await;
    tab.picture("wall-crowded", &WALLS[1..2]).await;

    // On a day without a duty, and where all is given up, what was done stays.
    service.run(r#"UPDATE habits SET schedule = '{"weekdays": []}'"#).await;
    tab.shows("#empty", "Nothing to do today.").await;
    service.run("UPDATE habits SET archived = true").await;
    tab.shows("#empty", "No habits yet.").await;
    eventually(json!(days), green).await;
    tab.picture("wall-empty", &WALLS[1..2]).await;
    tab.has_no_errors().await;
    tab.end().await;
}
