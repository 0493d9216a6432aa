-- The schema of the Kairos habit app. A sample: sync works on any schema.
--
-- Ids are text. Devices make them while offline (mostly UUIDs), users come from an identity provider whose ids are not
-- UUIDs, and text travels to SQLite and back unchanged.

-- Profiles. Identities live at the identity provider: a first habit may arrive before a profile, so `user_id` columns
-- below are no foreign keys.
CREATE TABLE IF NOT EXISTS users (
    id text PRIMARY KEY CHECK (length(id) BETWEEN 1 AND 128),
    display_name text NOT NULL,
    time_zone text NOT NULL DEFAULT 'UTC',
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE IF NOT EXISTS households (
    id text PRIMARY KEY CHECK (length(id) BETWEEN 1 AND 128),
    name text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE IF NOT EXISTS household_members (
    id text PRIMARY KEY CHECK (length(id) BETWEEN 1 AND 128),
    household_id text NOT NULL REFERENCES households (id) ON DELETE CASCADE,
    user_id text NOT NULL,
    role text NOT NULL DEFAULT 'member' CHECK (role IN ('admin', 'member')),
    joined_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (household_id, user_id)
);
CREATE INDEX IF NOT EXISTS household_members_user_id ON household_members (user_id);

CREATE TABLE IF NOT EXISTS habits (
    id text PRIMARY KEY CHECK (length(id) BETWEEN 1 AND 128),
    user_id text NOT NULL,
    name text NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    description text,
    icon text,
    color text CHECK (color ~ '^#[0-9a-fA-F]{6}$'),
    -- {"every": "day"} or {"weekdays": [1, 3, 5]}, Monday being 1.
    schedule jsonb NOT NULL DEFAULT '{"every": "day"}',
    target_per_day integer NOT NULL DEFAULT 1 CHECK (target_per_day > 0),
    position integer NOT NULL DEFAULT 0,
    archived boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS habits_user_id ON habits (user_id);

-- Not unique by day: two devices may complete the same habit while offline, and neither may lose its row.
CREATE TABLE IF NOT EXISTS completions (
    id text PRIMARY KEY CHECK (length(id) BETWEEN 1 AND 128),
    habit_id text NOT NULL REFERENCES habits (id) ON DELETE CASCADE,
    completed_on date NOT NULL,
    completed_at timestamptz NOT NULL DEFAULT now(),
    amount numeric(8, 2) NOT NULL DEFAULT 1 CHECK (amount > 0),
    note text,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS completions_habit_id ON completions (habit_id, completed_on);

CREATE TABLE IF NOT EXISTS routines (
    id text PRIMARY KEY CHECK (length(id) BETWEEN 1 AND 128),
    user_id text NOT NULL,
    name text NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    starts_at time,
    archived boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS routines_user_id ON routines (user_id);

CREATE TABLE IF NOT EXISTS routine_habits (
    id text PRIMARY KEY CHECK (length(id) BETWEEN 1 AND 128),
    routine_id text NOT NULL REFERENCES routines (id) ON DELETE CASCADE,
    habit_id text NOT NULL REFERENCES habits (id) ON DELETE CASCADE,
    position integer NOT NULL DEFAULT 0,
    UNIQUE (routine_id, habit_id)
);
CREATE INDEX IF NOT EXISTS routine_habits_habit_id ON routine_habits (habit_id);

-- A planned break from a habit: illness, travel.
CREATE TABLE IF NOT EXISTS recovery_sessions (
    id text PRIMARY KEY CHECK (length(id) BETWEEN 1 AND 128),
    habit_id text NOT NULL REFERENCES habits (id) ON DELETE CASCADE,
    reason text NOT NULL,
    started_at timestamptz NOT NULL,
    ended_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT recovery_sessions_order CHECK (ended_at >= started_at)
);
CREATE INDEX IF NOT EXISTS recovery_sessions_habit_id ON recovery_sessions (habit_id);
