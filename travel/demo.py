"""The demo data of this app: for each table a statement that creates the rows of users %(low)s to %(high)s - 1."""

from fly2any.database.seed.functions import ROUTE, long_tailed, per_user

from .models import PriceAlert, PriceHistory, PriceMonitorLog, RecentSearch, SavedSearch

SAVED_SEARCHES_SQL = f"""
    INSERT INTO saved_searches (id, "userId", name, origin, destination, "departDate", "returnDate", adults, children, infants, "cabinClass", filters, "searchCount", "lastSearched", "createdAt", "updatedAt")
    SELECT pg_temp.make_id('saved', row.k), pg_temp.make_id('users', u.n), r.origin || ' to ' || r.city, r.origin, r.destination,
           to_char(departs, 'YYYY-MM-DD') || CASE WHEN pg_temp.dice('flexible', row.k) < 0.1 THEN ',' || to_char(departs + 1, 'YYYY-MM-DD') ELSE '' END,
           CASE WHEN pg_temp.dice('return', row.k) < 0.7 THEN to_char(departs + 7, 'YYYY-MM-DD') END,
           1 + floor(pg_temp.dice('adults', row.k) * 3)::int, floor(pow(pg_temp.dice('children', row.k), 3) * 3)::int, 0,
           pg_temp.pick(ARRAY['economy','economy','premium_economy','business','first'], 'class', row.k),
           CASE WHEN pg_temp.dice('filters', row.k) < 0.5 THEN
               jsonb_build_object('priceRange', jsonb_build_array(0, 2000), 'stops', jsonb_build_array(0, 1), 'airlines', jsonb_build_array(), 'cabinClass', jsonb_build_array('economy')) END,
           1 + floor(pow(pg_temp.dice('count', row.k), 4) * 30)::int, at, at - interval '3 hours', at
    {per_user(long_tailed(2, "saved"))} {ROUTE.format(salt="saved")}
    CROSS JOIN LATERAL (SELECT pg_temp.moment('saved', row.k, u.n, %(until)s) AS at, %(until)s::date + floor(pg_temp.dice('departs', row.k) * 200)::int AS departs) AS t
"""

PRICE_ALERTS_SQL = f"""
    INSERT INTO price_alerts (id, "userId", origin, destination, "departDate", "returnDate", "currentPrice", "targetPrice", currency, active, triggered, "lastChecked", "triggeredAt", "lastNotifiedAt", "notificationCount", "createdAt", "updatedAt")
    SELECT pg_temp.make_id('alerts', row.k), pg_temp.make_id('users', u.n), r.origin, r.destination, to_char(departs, 'YYYY-MM-DD'),
           CASE WHEN pg_temp.dice('return', row.k) < 0.6 THEN to_char(departs + 10, 'YYYY-MM-DD') END,
           price, CASE WHEN fired_at IS NULL THEN floor(price * (0.7 + 0.25 * target)) ELSE ceil(price * (1 + 0.1 * target)) END, 'USD', pg_temp.dice('active', row.k) < 0.6, fired_at IS NOT NULL,
           checked, fired_at, fired_at, (fired_at IS NOT NULL)::int, at, checked
    {per_user(long_tailed(2, "alerts"))} {ROUTE.format(salt="alerts")}
    CROSS JOIN LATERAL (SELECT %(until)s::date + (3 + pg_temp.dice('departs', row.k) * 200)::int AS departs, pg_temp.dice('target', row.k) AS target,
                               pg_temp.moment('alerts', row.k, u.n, %(until)s) AS at) AS t
    CROSS JOIN LATERAL (SELECT CASE WHEN pg_temp.dice('triggered', row.k) < 0.2 THEN least(at + interval '2 days', %(until)s) END AS fired_at) AS f
    CROSS JOIN LATERAL (SELECT coalesce(fired_at, greatest(at, %(until)s::timestamptz - interval '1 minute' * floor(720 * pg_temp.dice('checked', row.k)))) AS checked) AS c
    CROSS JOIN LATERAL (SELECT pg_temp.price(r.kilometres, departs - %(until)s::date, pg_temp.dice('luck', row.k)) AS price) AS p
"""

RECENT_SEARCHES_SQL = f"""
    INSERT INTO recent_searches (id, "userId", city, country, "airportCode", origin, price, "originalPrice", "departDate", "returnDate", "viewedAt")
    SELECT pg_temp.make_id('recent', row.k), pg_temp.make_id('users', u.n), r.city, r.country, r.destination, r.origin, price,
           CASE WHEN pg_temp.dice('reduced', row.k) < 0.3 THEN round((price * 1.2)::numeric, 2)::double precision END,
           to_char(%(until)s::date + lead, 'YYYY-MM-DD'), NULL, pg_temp.moment('recent', row.k, u.n, %(until)s)
    {per_user(long_tailed(4, "recent"))} {ROUTE.format(salt="recent")}
    CROSS JOIN LATERAL (SELECT (5 + pg_temp.dice('lead', row.k) * 150)::int AS lead) AS l
    CROSS JOIN LATERAL (SELECT pg_temp.price(r.kilometres, lead, pg_temp.dice('luck', row.k)) AS price) AS p
"""

# Ten prices per user, although they belong to no user: each seen `lead` days before its departure, more expensive the later. Every fifth user up
# to number 1,000 stands for a route and a departure date that were watched for 90 days: 50 to 200 prices more, which follow the
# lead, the weekdays of the departure and of the look, and occasional sales.
WATCHED = "u.n %% 5 = 0 AND u.n <= 1000"
PRICE_HISTORY_SQL = f"""
    INSERT INTO price_history (id, origin, destination, "departDate", "returnDate", price, currency, provider, timestamp)
    SELECT pg_temp.make_id('history', row.k), r.origin, r.destination, to_char(departs, 'YYYY-MM-DD'), NULL,
           CASE WHEN watched THEN round((pg_temp.price(r.kilometres, extract(epoch FROM departs - seen) / 86400, 0.35 + 0.3 * pg_temp.dice('luck', row.k))
                * (1 + 0.3 * exp(-extract(epoch FROM departs - seen) / 86400 / 40)) * CASE WHEN extract(isodow FROM departs) IN (5, 7) THEN 1.12 ELSE 1 END * CASE WHEN extract(isodow FROM seen) IN (2, 3) THEN 0.96 ELSE 1 END
                * CASE WHEN pg_temp.dice('sale', u.n * 1000 + extract(week FROM seen)::int) < 0.12 THEN 0.8 ELSE 1 END)::numeric, 2)::double precision
           ELSE pg_temp.price(r.kilometres, lead, pg_temp.dice('luck', row.k)) END, 'USD', pg_temp.pick(ARRAY['duffel','duffel','amadeus','mock'], 'provider', row.k), seen
    {per_user(f"CASE WHEN {WATCHED} THEN 60 + floor(pg_temp.dice('watched', u.n) * 151) ELSE 10 END")}
    CROSS JOIN LATERAL (SELECT s.place > 10 AS watched, 50 + floor(pg_temp.dice('watched', u.n) * 151) AS looks, floor(pg_temp.dice('lead', row.k) * 180)::int AS lead) AS w
    CROSS JOIN LATERAL (SELECT CASE WHEN watched THEN %(until)s::timestamptz - interval '90 days' * ((s.place - 10 - pg_temp.dice('seen', row.k)) / looks)
                               ELSE %(until)s::timestamptz - interval '1 second' * floor(31536000 * pg_temp.dice('seen', row.k)) END AS seen) AS t
    CROSS JOIN LATERAL (SELECT date_trunc('day', CASE WHEN watched THEN %(until)s::timestamptz + interval '1 day' * (2 + floor(30 * pg_temp.dice('departs', u.n))) ELSE seen + interval '1 day' * lead END, 'UTC') AS departs) AS d
    JOIN seed_routes AS r ON r.number = floor(pow(CASE WHEN watched THEN pg_temp.dice('watched route', u.n) ELSE pg_temp.dice('history route', row.k) END, 2) * %(routes)s)::int
"""

PRICE_MONITOR_LOGS_SQL = """
    INSERT INTO price_monitor_logs (id, "executionTime", "alertsChecked", "alertsTriggered", "alertsFailed", errors, duration, "triggeredBy")
    SELECT pg_temp.make_id('runs', u.n), %(until)s::timestamptz - interval '10 minutes' * (u.n / 10), checked, floor(checked * 0.03)::int, failed,
           CASE WHEN failed = 0 THEN 'null'::jsonb ELSE jsonb_build_array(jsonb_build_object('alertId', pg_temp.make_id('alerts', u.n * 10000 + 1), 'error', 'provider timed out')) END,
           (800 + pg_temp.dice('duration', u.n) * 20000)::int, CASE WHEN pg_temp.dice('manual', u.n) < 0.05 THEN 'manual' ELSE 'cron' END
    FROM generate_series(%(low)s::bigint, %(high)s::bigint - 1) AS u (n)
    CROSS JOIN LATERAL (SELECT (50 + pg_temp.dice('checked', u.n) * 400)::int AS checked, (pg_temp.dice('failed', u.n) < 0.1)::int AS failed) AS run
    WHERE u.n %% 10 = 0
"""

# Parents before children.
ROWS = {
    SavedSearch: SAVED_SEARCHES_SQL,
    PriceAlert: PRICE_ALERTS_SQL,
    RecentSearch: RECENT_SEARCHES_SQL,
    PriceHistory: PRICE_HISTORY_SQL,
    PriceMonitorLog: PRICE_MONITOR_LOGS_SQL,
}
