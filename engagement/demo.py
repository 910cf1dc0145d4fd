"""The demo data of this app: for each table a statement that creates the rows of users %(low)s to %(high)s - 1."""

from fly2any.database.seed.functions import BROWSERS, ROUTE, SIGN_INS, long_tailed, per_user

from .models import LoginHistory, Notification, PushSubscription, UserActivity, UserSession, WishlistItem

DEVICES = "ARRAY['Desktop','Mobile','Mobile','Tablet']"
SYSTEMS = "ARRAY['Windows','macOS','iOS','Android','Linux','Unknown']"
PLACES = "ARRAY['São Paulo, BR','Lisbon, PT','New York, US','Miami, US','Madrid, ES','Paris, FR','London, GB','Berlin, DE']"
IP = "'203.0.113.' || floor(pg_temp.dice('{0} ip', row.k) * 254 + 1)::int"  # A block reserved for documentation (RFC 5737).

WISHLIST_ITEMS_SQL = f"""
    INSERT INTO wishlist_items (id, "userId", "flightData", notes, "targetPrice", "notifyOnDrop", "createdAt", "updatedAt")
    SELECT pg_temp.make_id('wishes', row.k), pg_temp.make_id('users', u.n),
           jsonb_build_object('id', 'offer-' || row.k, 'origin', r.origin, 'destination', r.destination, 'departureDate', to_char(departs, 'YYYY-MM-DD'), 'price', price, 'currency', 'USD',
                              'airline', pg_temp.pick(%(airlines)s::text[], 'airline', row.k), 'stops', floor(pg_temp.dice('stops', row.k) * 3)::int,
                              'duration', 'PT' || (1 + (r.kilometres / 800)::int) || 'H'),
           CASE WHEN pg_temp.dice('notes', row.k) < 0.15 THEN 'For the holidays' END,
           CASE WHEN pg_temp.dice('target', row.k) < 0.5 THEN floor(price * 0.85) END, pg_temp.dice('notify', row.k) < 0.9, at, at
    {per_user(long_tailed(1, "wishes"))} {ROUTE.format(salt="wishes")}
    CROSS JOIN LATERAL (SELECT %(until)s::date + (5 + pg_temp.dice('departs', row.k) * 200)::int AS departs, pg_temp.moment('wishes', row.k, u.n, %(until)s) AS at) AS t
    CROSS JOIN LATERAL (SELECT pg_temp.price(r.kilometres, departs - %(until)s::date, pg_temp.dice('luck', row.k)) AS price) AS p
"""

NOTIFICATIONS_SQL = f"""
    INSERT INTO notifications (id, "userId", type, title, message, priority, read, "actionUrl", metadata, "createdAt", "readAt")
    SELECT pg_temp.make_id('notices', row.k), pg_temp.make_id('users', u.n), kind,
           initcap(replace(kind, '_', ' ')), replace(kind, '_', ' ') || ': ' || r.origin || ' → ' || r.destination,
           pg_temp.pick(ARRAY['low','medium','medium','high','urgent'], 'priority', row.k), read, '/trips/' || r.origin || '-' || r.destination,
           CASE WHEN kind = 'price_alert_triggered' THEN jsonb_build_object('originalPrice', 480, 'newPrice', 399, 'currency', 'USD', 'route', jsonb_build_object('origin', r.origin, 'destination', r.destination)) END,
           at, CASE WHEN read THEN least(at + interval '5 hours', %(until)s) END
    {per_user(long_tailed(10, "notices"))} {ROUTE.format(salt="notices")}
    CROSS JOIN LATERAL (SELECT pg_temp.pick(ARRAY['price_alert_triggered','price_alert_triggered','promotion','trip_reminder','booking_confirmed','payment_successful','payment_failed','system_update','account_security'], 'kind', row.k) AS kind,
                               pg_temp.dice('read', row.k) < 0.7 AS read, pg_temp.moment('notices', row.k, u.n, %(until)s) AS at) AS t
"""

PUSH_SUBSCRIPTIONS_SQL = f"""
    INSERT INTO push_subscriptions (id, "userId", endpoint, p256dh, auth, "userAgent", "createdAt")
    SELECT pg_temp.make_id('push', row.k), pg_temp.make_id('users', u.n), 'https://push.example/send/' || %(seed)s || '-' || md5(row.k::text), 'demo-' || md5('p' || row.k), 'demo-' || md5('a' || row.k),
           'Mozilla/5.0 (demo)', pg_temp.moment('push', row.k, u.n, %(until)s)
    {per_user("CASE WHEN pg_temp.dice('push many', u.n) < 0.3 THEN 1 ELSE 0 END")}
"""

USER_ACTIVITIES_SQL = f"""
    INSERT INTO user_activities (id, "userId", "eventType", "eventData", "ipAddress", "userAgent", referrer, "createdAt")
    SELECT pg_temp.make_id('activities', row.k), CASE WHEN pg_temp.dice('guest', row.k) < 0.9 THEN pg_temp.make_id('users', u.n) END, kind,
           CASE WHEN kind IN ('search', 'view') THEN jsonb_build_object('origin', r.origin, 'destination', r.destination) END,
           {IP.format("activities")}, 'Mozilla/5.0 (demo)', CASE WHEN pg_temp.dice('referrer', row.k) < 0.3 THEN 'https://search.example/' END, pg_temp.moment('activities', row.k, u.n, %(until)s)
    {per_user(long_tailed(10, "activities"))} {ROUTE.format(salt="activities")}
    CROSS JOIN LATERAL (SELECT pg_temp.pick(ARRAY['search','search','search','view','view','click','click','book','guest_email_captured','error:payment'], 'kind', row.k) AS kind) AS t
"""

USER_SESSIONS_SQL = f"""
    INSERT INTO user_sessions (id, "userId", token, device, browser, os, location, "ipAddress", "lastActive", "createdAt")
    SELECT pg_temp.make_id('devices', row.k), pg_temp.make_id('users', u.n), 'demo-device-' || %(seed)s || '-' || md5(row.k::text), pg_temp.pick({DEVICES}, 'device', row.k),
           pg_temp.pick({BROWSERS}, 'browser', row.k), pg_temp.pick({SYSTEMS}, 'os', row.k), pg_temp.pick({PLACES}, 'place', row.k), {IP.format("devices")}, at, at - interval '4 days'
    {per_user(long_tailed(2, "devices"))}
    CROSS JOIN LATERAL (SELECT pg_temp.moment('devices', row.k, u.n, %(until)s) AS at) AS t
"""

LOGIN_HISTORY_SQL = f"""
    INSERT INTO login_history (id, "userId", device, browser, os, location, "ipAddress", success, timestamp)
    SELECT pg_temp.make_id('logins', row.k), pg_temp.make_id('users', u.n), pg_temp.pick({DEVICES}, 'device', row.k), pg_temp.pick({BROWSERS}, 'browser', row.k),
           pg_temp.pick({SYSTEMS}, 'os', row.k), pg_temp.pick({PLACES}, 'place', row.k), {IP.format("logins")}, pg_temp.dice('success', row.k) < 0.93, pg_temp.moment('logins', row.k, u.n, %(until)s)
    {per_user(SIGN_INS)}
"""

# Parents before children.
ROWS = {
    WishlistItem: WISHLIST_ITEMS_SQL,
    Notification: NOTIFICATIONS_SQL,
    PushSubscription: PUSH_SUBSCRIPTIONS_SQL,
    UserActivity: USER_ACTIVITIES_SQL,
    UserSession: USER_SESSIONS_SQL,
    LoginHistory: LOGIN_HISTORY_SQL,
}
