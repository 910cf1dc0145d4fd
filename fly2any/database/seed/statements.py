"""The SQL that makes the demo data, a statement a table, for the users number %(low)s to %(high)s - 1.

Every value is a function of the seed, the table and the number of the row (`dice`), and of the date %(until)s where it is a
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


def _per_user(many: str) -> str:
    return PER_USER.format(many=f"({many})::int")


def _at_most(average: int, salt: str) -> str:
    """Return an expression for a number that is `average` on average and large for a few."""
    return f"least(9000, floor(-{average} * ln(1 - pg_temp.dice('{salt} many', u.n))))"


DEVICES = "ARRAY['Desktop','Mobile','Mobile','Tablet']"
BROWSERS = "ARRAY['Chrome','Chrome','Safari','Firefox','Edge','Unknown']"
SYSTEMS = "ARRAY['Windows','macOS','iOS','Android','Linux','Unknown']"
PLACES = "ARRAY['São Paulo, BR','Lisbon, PT','New York, US','Miami, US','Madrid, ES','Paris, FR','London, GB','Berlin, DE']"
IP = "'203.0.113.' || floor(pg_temp.dice('{0} ip', row.k) * 254 + 1)::int"  # A block that is kept for documentation.

USERS_SQL = """
    INSERT INTO users (id, name, email, "emailVerified", image, "firstName", "lastName", phone, "dateOfBirth", gender, country, timezone,
                       bio, "avatarUrl", "profileCompleted", "createdAt", "updatedAt", "lastLoginAt")
    SELECT pg_temp.make_id('users', u.n), first || ' ' || last,
           lower(first || '.' || last) || '.' || u.n || '.' || %(seed)s || %(domain)s,
           CASE WHEN pg_temp.dice('verified', u.n) < 0.8 THEN joined + interval '1 hour' END,
           NULL, first, last,
           CASE WHEN pg_temp.dice('phone', u.n) < 0.4 THEN '+1 555 01' || lpad(floor(pg_temp.dice('number', u.n) * 100)::text, 2, '0') END,
           CASE WHEN pg_temp.dice('born', u.n) < 0.5 THEN date_trunc('day', %(until)s::timestamptz - interval '1 day' * (6600 + 20000 * pg_temp.dice('age', u.n))) END,
           pg_temp.pick(ARRAY['male','female','other','',NULL,NULL], 'gender', u.n),
           pg_temp.pick(ARRAY['BR','US','PT','ES','FR','GB','DE','IT','JP','IN'], 'country', u.n),
           pg_temp.pick(ARRAY['America/Sao_Paulo','America/New_York','Europe/Lisbon','Europe/Madrid','Asia/Tokyo'], 'zone', u.n),
           CASE WHEN pg_temp.dice('bio', u.n) < 0.1 THEN 'Travels for ' || pg_temp.pick(ARRAY['work','food','the sea','family','football'], 'why', u.n) || '.' END,
           NULL, pg_temp.dice('completed', u.n) < 0.6, joined, joined + interval '2 hours',
           CASE WHEN pg_temp.dice('seen', u.n) < 0.9 THEN pg_temp.moment('seen', u.n, u.n, %(until)s) END
    FROM generate_series(%(low)s::bigint, %(high)s::bigint - 1) AS u (n)
    CROSS JOIN LATERAL (SELECT pg_temp.pick(%(first_names)s::text[], 'first', u.n) AS first,
                               pg_temp.pick(%(last_names)s::text[], 'last', u.n) AS last,
                               pg_temp.joined(u.n, %(until)s) AS joined) AS person
"""

ACCOUNTS_SQL = f"""
    INSERT INTO accounts (id, "userId", type, provider, "providerAccountId", refresh_token, access_token, expires_at, token_type, scope, id_token)
    SELECT pg_temp.make_id('accounts', row.k), pg_temp.make_id('users', u.n), 'oauth',
           (ARRAY['google','facebook','apple'])[s.place], %(seed)s || '-' || row.k,
           'demo-refresh-' || md5(row.k::text), 'demo-access-' || md5('a' || row.k),
           extract(epoch FROM %(until)s::timestamptz)::int + 3600, 'Bearer', 'openid email profile', 'demo-id-' || md5('i' || row.k)
    {_per_user("CASE WHEN pg_temp.dice('accounts many', u.n) < 0.5 THEN 1 WHEN pg_temp.dice('accounts many', u.n) < 0.55 THEN 2 ELSE 0 END")}
"""

SESSIONS_SQL = f"""
    INSERT INTO sessions (id, "sessionToken", "userId", expires)
    SELECT pg_temp.make_id('sessions', row.k), 'demo-session-' || %(seed)s || '-' || md5(row.k::text), pg_temp.make_id('users', u.n), %(until)s::timestamptz + interval '20 days'
    {_per_user("CASE WHEN pg_temp.dice('sessions many', u.n) < 0.02 THEN 1 ELSE 0 END")}
"""

VERIFICATION_TOKENS_SQL = f"""
    INSERT INTO verification_tokens (identifier, token, expires, id)
    SELECT lower(pg_temp.pick(%(first_names)s::text[], 'first', u.n) || '.' || pg_temp.pick(%(last_names)s::text[], 'last', u.n)) || '.' || u.n || '.' || %(seed)s || %(domain)s, 'demo-token-' || %(seed)s || '-' || md5(row.k::text), %(until)s::timestamptz + interval '1 day', pg_temp.make_id('verification', row.k)
    {_per_user("CASE WHEN pg_temp.dice('verification many', u.n) < 0.05 THEN 1 ELSE 0 END")}
"""

USER_PREFERENCES_SQL = f"""
    INSERT INTO user_preferences (id, "userId", "preferredCabinClass", "preferredAirlines", "homeAirport", "newsletterOptIn", currency, language, theme, "createdAt", "updatedAt")
    SELECT pg_temp.make_id('preferences', row.k), pg_temp.make_id('users', u.n),
           pg_temp.pick(ARRAY['economy','economy','premium','business','first',NULL], 'class', u.n),
           CASE WHEN pg_temp.dice('airlines', u.n) < 0.4 THEN ARRAY[pg_temp.pick(%(airlines)s::text[], 'airline', u.n)]
                WHEN pg_temp.dice('airlines', u.n) < 0.6 THEN ARRAY[]::text[] END,
           pg_temp.pick(%(airports)s::text[], 'home', u.n), pg_temp.dice('newsletter', u.n) < 0.2,
           pg_temp.pick(ARRAY['USD','USD','EUR','BRL','GBP'], 'currency', u.n), pg_temp.pick(ARRAY['en','en','pt','es','fr','de'], 'language', u.n),
           pg_temp.pick(ARRAY['light','light','dark','auto'], 'theme', u.n), pg_temp.joined(u.n, %(until)s), pg_temp.joined(u.n, %(until)s)
    {_per_user("CASE WHEN pg_temp.dice('preferences many', u.n) < 0.7 THEN 1 ELSE 0 END")}
"""

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
    {_per_user(_at_most(2, "saved"))} {ROUTE.format(salt="saved")}
    CROSS JOIN LATERAL (SELECT pg_temp.moment('saved', row.k, u.n, %(until)s) AS at, %(until)s::date + floor(pg_temp.dice('departs', row.k) * 200)::int AS departs) AS t
"""

PRICE_ALERTS_SQL = f"""
    INSERT INTO price_alerts (id, "userId", origin, destination, "departDate", "returnDate", "currentPrice", "targetPrice", currency, active, triggered, "lastChecked", "triggeredAt", "lastNotifiedAt", "notificationCount", "createdAt", "updatedAt")
    SELECT pg_temp.make_id('alerts', row.k), pg_temp.make_id('users', u.n), r.origin, r.destination, to_char(departs, 'YYYY-MM-DD'),
           CASE WHEN pg_temp.dice('return', row.k) < 0.6 THEN to_char(departs + 10, 'YYYY-MM-DD') END,
           price, floor(price * (0.7 + 0.25 * pg_temp.dice('target', row.k))), 'USD', pg_temp.dice('active', row.k) < 0.6, triggered,
           %(until)s::timestamptz - interval '1 minute' * floor(720 * pg_temp.dice('checked', row.k)),
           CASE WHEN triggered THEN at + interval '2 days' END, CASE WHEN triggered THEN at + interval '2 days' END, triggered::int, at, at
    {_per_user(_at_most(2, "alerts"))} {ROUTE.format(salt="alerts")}
    CROSS JOIN LATERAL (SELECT %(until)s::date + (3 + pg_temp.dice('departs', row.k) * 200)::int AS departs, pg_temp.dice('triggered', row.k) < 0.2 AS triggered,
                               pg_temp.moment('alerts', row.k, u.n, %(until)s) AS at) AS t
    CROSS JOIN LATERAL (SELECT pg_temp.price(r.kilometres, departs - %(until)s::date, pg_temp.dice('luck', row.k)) AS price) AS p
"""

RECENT_SEARCHES_SQL = f"""
    INSERT INTO recent_searches (id, "userId", city, country, "airportCode", origin, price, "originalPrice", "departDate", "returnDate", "viewedAt")
    SELECT pg_temp.make_id('recent', row.k), pg_temp.make_id('users', u.n), r.city, r.country, r.destination, r.origin, price,
           CASE WHEN pg_temp.dice('reduced', row.k) < 0.3 THEN round((price * 1.2)::numeric, 2)::double precision END,
           to_char(%(until)s::date + lead, 'YYYY-MM-DD'), NULL, pg_temp.moment('recent', row.k, u.n, %(until)s)
    {_per_user(_at_most(4, "recent"))} {ROUTE.format(salt="recent")}
    CROSS JOIN LATERAL (SELECT (5 + pg_temp.dice('lead', row.k) * 150)::int AS lead) AS l
    CROSS JOIN LATERAL (SELECT pg_temp.price(r.kilometres, lead, pg_temp.dice('luck', row.k)) AS price) AS p
"""

# Ten prices a user, though they are nobody's: each seen `lead` days before its departure, dearer the later.
PRICE_HISTORY_SQL = f"""
    INSERT INTO price_history (id, origin, destination, "departDate", "returnDate", price, currency, provider, timestamp)
    SELECT pg_temp.make_id('history', row.k), r.origin, r.destination, to_char(seen + interval '1 day' * lead, 'YYYY-MM-DD'), NULL,
           pg_temp.price(r.kilometres, lead, pg_temp.dice('luck', row.k)), 'USD', pg_temp.pick(ARRAY['duffel','duffel','amadeus','mock'], 'provider', row.k), seen
    {_per_user("10")} {ROUTE.format(salt="history")}
    CROSS JOIN LATERAL (SELECT %(until)s::timestamptz - interval '1 second' * floor(31536000 * pg_temp.dice('seen', row.k)) AS seen,
                               floor(pg_temp.dice('lead', row.k) * 180)::int AS lead) AS t
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

WISHLIST_ITEMS_SQL = f"""
    INSERT INTO wishlist_items (id, "userId", "flightData", notes, "targetPrice", "notifyOnDrop", "createdAt", "updatedAt")
    SELECT pg_temp.make_id('wishes', row.k), pg_temp.make_id('users', u.n),
           jsonb_build_object('id', 'offer-' || row.k, 'origin', r.origin, 'destination', r.destination, 'departureDate', to_char(departs, 'YYYY-MM-DD'), 'price', price, 'currency', 'USD',
                              'airline', pg_temp.pick(%(airlines)s::text[], 'airline', row.k), 'stops', floor(pg_temp.dice('stops', row.k) * 3)::int,
                              'duration', 'PT' || (1 + (r.kilometres / 800)::int) || 'H'),
           CASE WHEN pg_temp.dice('notes', row.k) < 0.15 THEN 'For the holidays' END,
           CASE WHEN pg_temp.dice('target', row.k) < 0.5 THEN floor(price * 0.85) END, pg_temp.dice('notify', row.k) < 0.9, at, at
    {_per_user(_at_most(1, "wishes"))} {ROUTE.format(salt="wishes")}
    CROSS JOIN LATERAL (SELECT %(until)s::date + (5 + pg_temp.dice('departs', row.k) * 200)::int AS departs, pg_temp.moment('wishes', row.k, u.n, %(until)s) AS at) AS t
    CROSS JOIN LATERAL (SELECT pg_temp.price(r.kilometres, departs - %(until)s::date, pg_temp.dice('luck', row.k)) AS price) AS p
"""

NOTIFICATIONS_SQL = f"""
    INSERT INTO notifications (id, "userId", type, title, message, priority, read, "actionUrl", metadata, "createdAt", "readAt")
    SELECT pg_temp.make_id('notices', row.k), pg_temp.make_id('users', u.n), kind,
           initcap(replace(kind, '_', ' ')), replace(kind, '_', ' ') || ': ' || r.origin || ' → ' || r.destination,
           pg_temp.pick(ARRAY['low','medium','medium','high','urgent'], 'priority', row.k), read, '/trips/' || r.origin || '-' || r.destination,
           CASE WHEN kind = 'price_alert_triggered' THEN jsonb_build_object('originalPrice', 480, 'newPrice', 399, 'currency', 'USD', 'route', jsonb_build_object('origin', r.origin, 'destination', r.destination)) END,
           at, CASE WHEN read THEN at + interval '5 hours' END
    {_per_user(_at_most(10, "notices"))} {ROUTE.format(salt="notices")}
    CROSS JOIN LATERAL (SELECT pg_temp.pick(ARRAY['price_alert_triggered','price_alert_triggered','promotion','trip_reminder','booking_confirmed','payment_successful','payment_failed','system_update','account_security'], 'kind', row.k) AS kind,
                               pg_temp.dice('read', row.k) < 0.7 AS read, pg_temp.moment('notices', row.k, u.n, %(until)s) AS at) AS t
"""

PUSH_SUBSCRIPTIONS_SQL = f"""
    INSERT INTO push_subscriptions (id, "userId", endpoint, p256dh, auth, "userAgent", "createdAt")
    SELECT pg_temp.make_id('push', row.k), pg_temp.make_id('users', u.n), 'https://push.example/send/' || %(seed)s || '-' || md5(row.k::text), 'demo-' || md5('p' || row.k), 'demo-' || md5('a' || row.k),
           'Mozilla/5.0 (demo)', pg_temp.moment('push', row.k, u.n, %(until)s)
    {_per_user("CASE WHEN pg_temp.dice('push many', u.n) < 0.3 THEN 1 ELSE 0 END")}
"""

USER_ACTIVITIES_SQL = f"""
    INSERT INTO user_activities (id, "userId", "eventType", "eventData", "ipAddress", "userAgent", referrer, "createdAt")
    SELECT pg_temp.make_id('activities', row.k), CASE WHEN pg_temp.dice('guest', row.k) < 0.9 THEN pg_temp.make_id('users', u.n) END, kind,
           CASE WHEN kind IN ('search', 'view') THEN jsonb_build_object('origin', r.origin, 'destination', r.destination) END,
           {IP.format("activities")}, 'Mozilla/5.0 (demo)', CASE WHEN pg_temp.dice('referrer', row.k) < 0.3 THEN 'https://search.example/' END, pg_temp.moment('activities', row.k, u.n, %(until)s)
    {_per_user(_at_most(10, "activities"))} {ROUTE.format(salt="activities")}
    CROSS JOIN LATERAL (SELECT pg_temp.pick(ARRAY['search','search','search','view','view','click','click','book','guest_email_captured','error:payment'], 'kind', row.k) AS kind) AS t
"""

USER_SESSIONS_SQL = f"""
    INSERT INTO user_sessions (id, "userId", token, device, browser, os, location, "ipAddress", "lastActive", "createdAt")
    SELECT pg_temp.make_id('devices', row.k), pg_temp.make_id('users', u.n), 'demo-device-' || %(seed)s || '-' || md5(row.k::text), pg_temp.pick({DEVICES}, 'device', row.k),
           pg_temp.pick({BROWSERS}, 'browser', row.k), pg_temp.pick({SYSTEMS}, 'os', row.k), pg_temp.pick({PLACES}, 'place', row.k), {IP.format("devices")}, at, at - interval '4 days'
    {_per_user(_at_most(2, "devices"))}
    CROSS JOIN LATERAL (SELECT pg_temp.moment('devices', row.k, u.n, %(until)s) AS at) AS t
"""

LOGIN_HISTORY_SQL = f"""
    INSERT INTO login_history (id, "userId", device, browser, os, location, "ipAddress", success, timestamp)
    SELECT pg_temp.make_id('logins', row.k), pg_temp.make_id('users', u.n), pg_temp.pick({DEVICES}, 'device', row.k), pg_temp.pick({BROWSERS}, 'browser', row.k),
           pg_temp.pick({SYSTEMS}, 'os', row.k), pg_temp.pick({PLACES}, 'place', row.k), {IP.format("logins")}, pg_temp.dice('success', row.k) < 0.93, pg_temp.moment('logins', row.k, u.n, %(until)s)
    {_per_user(_at_most(5, "logins"))}
"""

# %(teams)s, %(consultants)s and %(emojis)s are the consultant teams, in one order.
CONVERSATIONS_MANY = (
    "CASE WHEN pg_temp.dice('talks many', u.n) < 0.6 THEN 1 WHEN pg_temp.dice('talks many', u.n) < 0.8 THEN 2 ELSE 0 END"
)
MESSAGES_MANY = "6 + 2 * floor(pg_temp.dice('messages many', row.k) * 5)"

AI_CONVERSATIONS_SQL = f"""
    INSERT INTO ai_conversations (id, "sessionId", "userId", status, "currentConsultantTeam", "conversationContext", "searchHistory", metadata, "createdAt", "updatedAt")
    SELECT pg_temp.make_id('talks', row.k), md5(%(seed)s || '-' || row.k)::uuid::text, CASE WHEN pg_temp.dice('anonymous', row.k) < 0.9 THEN pg_temp.make_id('users', u.n) END,
           status, pg_temp.pick(%(teams)s::text[], 'team', row.k), jsonb_build_object('destination', r.city), jsonb_build_array(jsonb_build_object('origin', r.origin, 'destination', r.destination)),
           jsonb_strip_nulls(jsonb_build_object('startedAt', ms, 'lastMessageAt', ms + many * 20000, 'completedAt', CASE WHEN status = 'completed' THEN ms + many * 20000 END,
                                                'messageCount', many, 'platform', 'web', 'browser', pg_temp.pick({BROWSERS}, 'browser', row.k))),
           at, at + interval '20 seconds' * many
    {_per_user(CONVERSATIONS_MANY)} {ROUTE.format(salt="talks")}
    CROSS JOIN LATERAL (SELECT pg_temp.moment('talks', row.k, u.n, %(until)s) AS at, pg_temp.pick(ARRAY['active','completed','completed','abandoned'], 'status', row.k) AS status, ({MESSAGES_MANY})::int AS many) AS t
    CROSS JOIN LATERAL (SELECT (extract(epoch FROM at) * 1000)::bigint AS ms) AS m
"""

AI_MESSAGES_SQL = f"""
    INSERT INTO ai_messages (id, "conversationId", role, content, "consultantName", "consultantTeam", "consultantEmoji", "flightResults", "hotelResults", timestamp, "createdAt")
    SELECT md5(%(seed)s || '-' || row.k || '-' || said.turn)::uuid::text, pg_temp.make_id('talks', row.k),
           CASE WHEN by_us THEN 'assistant' ELSE 'user' END,
           CASE WHEN pg_temp.dice('encrypted', row.k) < 0.03 THEN 'v1:' || md5('iv' || row.k || said.turn) || ':' || md5('tag' || row.k || said.turn) || ':' || md5('text' || row.k || said.turn)
                WHEN by_us THEN pg_temp.pick(ARRAY['Here is what I found from ', 'I can offer you this from ', 'Let me check that for you: '], 'answer', row.k + said.turn) || r.origin || ' to ' || r.city || '.'
                ELSE pg_temp.pick(ARRAY['I would like to fly from ', 'How much is it from ', 'Can I change my trip from ', 'Do I need a visa from '], 'question', row.k + said.turn) || r.origin || ' to ' || r.city || '?' END,
           CASE WHEN by_us THEN (%(consultants)s::text[])[team] END, CASE WHEN by_us THEN (%(teams)s::text[])[team] END, CASE WHEN by_us THEN (%(emojis)s::text[])[team] END,
           CASE WHEN said.turn = 2 AND team = 1 THEN jsonb_build_array(jsonb_build_object('id', 'offer-' || row.k, 'airline', 'TP', 'flightNumber', 'TP ' || row.k %% 1000,
                'outbound', jsonb_build_object('departure', jsonb_build_object('airport', r.origin, 'time', '09:30'), 'arrival', jsonb_build_object('airport', r.destination, 'time', '18:05'), 'duration', 'PT8H35M', 'stops', 0),
                'price', jsonb_build_object('amount', pg_temp.price(r.kilometres, 30, 0.5)::text, 'currency', 'USD'), 'cabinClass', 'economy', 'seatsAvailable', 4)) END,
           CASE WHEN said.turn = 2 AND team = 2 THEN jsonb_build_array(jsonb_build_object('id', 'hotel-' || row.k, 'name', 'Hotel ' || r.city, 'rating', 4.2, 'address', r.city, 'pricePerNight', 120, 'totalPrice', 360,
                'currency', 'USD', 'amenities', jsonb_build_array('wifi', 'breakfast'), 'checkIn', to_char(at, 'YYYY-MM-DD'), 'checkOut', to_char(at + interval '3 days', 'YYYY-MM-DD'))) END,
           (extract(epoch FROM at) * 1000)::bigint + said.turn * 20000, at + interval '20 seconds' * said.turn
    {_per_user(CONVERSATIONS_MANY)} {ROUTE.format(salt="talks")}
    CROSS JOIN LATERAL generate_series(1, ({MESSAGES_MANY})::int) AS said (turn)
    CROSS JOIN LATERAL (SELECT said.turn %% 2 = 0 AS by_us, pg_temp.moment('talks', row.k, u.n, %(until)s) AS at,
                               1 + floor(pg_temp.dice('team', row.k) * cardinality(%(teams)s::text[]))::int AS team) AS t
"""

# Parents before children.
STATEMENTS = {
    "users": USERS_SQL,
    "accounts": ACCOUNTS_SQL,
    "sessions": SESSIONS_SQL,
    "verification_tokens": VERIFICATION_TOKENS_SQL,
    "user_preferences": USER_PREFERENCES_SQL,
    "saved_searches": SAVED_SEARCHES_SQL,
    "price_alerts": PRICE_ALERTS_SQL,
    "recent_searches": RECENT_SEARCHES_SQL,
    "price_history": PRICE_HISTORY_SQL,
    "price_monitor_logs": PRICE_MONITOR_LOGS_SQL,
    "wishlist_items": WISHLIST_ITEMS_SQL,
    "notifications": NOTIFICATIONS_SQL,
    "push_subscriptions": PUSH_SUBSCRIPTIONS_SQL,
    "user_activities": USER_ACTIVITIES_SQL,
    "user_sessions": USER_SESSIONS_SQL,
    "login_history": LOGIN_HISTORY_SQL,
    "ai_conversations": AI_CONVERSATIONS_SQL,
    "ai_messages": AI_MESSAGES_SQL,
}

# A user who is there under another id is an error, before rows hang on nobody; elsewhere what is there stays.
ON_CONFLICT = dict.fromkeys(STATEMENTS, " ON CONFLICT DO NOTHING") | {"users": " ON CONFLICT (id) DO NOTHING"}
