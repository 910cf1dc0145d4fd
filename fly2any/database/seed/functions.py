"""The SQL that the statements of the demo data share, which the apps have in their modules `demo`.

Every value is a function of the seed, the table and the number of the row (`dice`), and of the moment %(until)s where it is a
time, so the same rows come back; `ON CONFLICT DO NOTHING` makes a second run add nothing.
"""

# {seed} is an integer. `dice` is a number from 0 to 1, `pick` one of an array, `make_id` an id of the site's form (cuid:
# c and 24 of 0-9a-z); `salt` tells the tables and columns apart.
FUNCTIONS_SQL = """
    CREATE OR REPLACE FUNCTION pg_temp.dice(salt text, n bigint) RETURNS double precision
        LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
        $$ SELECT ((hashint8extended(n, hashtextextended(salt, {seed})) >> 12) & 2251799813685247) / 2251799813685248.0::double precision $$;
    CREATE OR REPLACE FUNCTION pg_temp.pick(choices anyarray, salt text, n bigint) RETURNS anyelement
        LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
        $$ SELECT choices[1 + floor(pg_temp.dice(salt, n) * cardinality(choices))::int] $$;
    CREATE OR REPLACE FUNCTION pg_temp.make_id(salt text, n bigint) RETURNS text
        LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
        $$ SELECT 'c' || lpad(to_hex(n), 11, '0') || lpad(to_hex(hashint8extended(n, hashtextextended(salt, {seed})) & 4503599627370495), 13, '0') $$;
    CREATE OR REPLACE FUNCTION pg_temp.joined(n bigint, until timestamptz) RETURNS timestamptz
        LANGUAGE sql STABLE PARALLEL SAFE AS
        $$ SELECT until - interval '1 second' * floor(86400 * (5 + 900 * pg_temp.dice('joined', n))) $$;
    CREATE OR REPLACE FUNCTION pg_temp.moment(salt text, n bigint, user_number bigint, until timestamptz) RETURNS timestamptz
        LANGUAGE sql STABLE PARALLEL SAFE AS
        $$ SELECT until - interval '1 second' * floor(sqrt(pg_temp.dice(salt, n)) * pg_temp.dice('recent', n)
                  * extract(epoch FROM until - pg_temp.joined(user_number, until))) $$;
    CREATE OR REPLACE FUNCTION pg_temp.price(kilometres double precision, lead_days double precision, luck double precision)
        RETURNS double precision LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
        $$ SELECT round(((45 + 0.075 * kilometres) * (0.85 + 1.1 * exp(-lead_days / 14)) * (0.9 + 0.2 * luck))::numeric, 2)::double precision $$;
    CREATE TEMPORARY TABLE seed_routes (
        number int PRIMARY KEY, origin text, destination text, city text, country text, kilometres double precision)
"""
# A pooler gives the session to another client after the transaction.
CLEAR_SQL = """
    DROP TABLE pg_temp.seed_routes;
    DROP FUNCTION pg_temp.dice, pg_temp.pick, pg_temp.make_id, pg_temp.joined, pg_temp.moment, pg_temp.price
"""

# Rows of a user come from here: {many} is their number, an expression over u.n; r is the route of row k.
PER_USER = """
    FROM generate_series(%(low)s::bigint, %(high)s::bigint - 1) AS u (n)
    CROSS JOIN LATERAL generate_series(1, {many}) AS s (place)
    CROSS JOIN LATERAL (SELECT u.n * 10000 + s.place AS k) AS row
"""
# Popular routes come up more often: the square of the dice.
ROUTE = """
    JOIN seed_routes AS r ON r.number = floor(pow(pg_temp.dice('{salt} route', row.k), 2) * %(routes)s)::int
"""


def per_user(many: str) -> str:
    """Return the end of a statement that makes `many` rows, an expression, for each user."""
    return PER_USER.format(many=f"({many})::int")


def long_tailed(average: int, salt: str) -> str:
    """Return an expression for a number that is `average` on average, and a hundred times that for one user of 400."""
    usual = f"floor(-{average} * ln(1 - pg_temp.dice('{salt} many', u.n)))"
    return f"CASE WHEN u.n %% 400 = 333 THEN {100 * average} ELSE {usual} END"


SIGN_INS = long_tailed(5, "logins")  # A person's rows of login_history.
LAST_SIGN_IN = f"""
    (SELECT max(pg_temp.moment('logins', u.n * 10000 + s, u.n, %(until)s)) FROM generate_series(1, ({SIGN_INS})::int) AS s
     WHERE pg_temp.dice('success', u.n * 10000 + s) < 0.93)"""
BROWSERS = "ARRAY['Chrome','Chrome','Safari','Firefox','Edge','Unknown']"
