"""The demo data of this app: for each table a statement that creates the rows of users %(low)s to %(high)s - 1."""

from fly2any.database.seed.functions import LAST_SIGN_IN, per_user

from .models import Account, Session, User, UserPreferences, VerificationToken

USERS_SQL = f"""
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
           NULL, pg_temp.dice('completed', u.n) < 0.6, joined, greatest(joined + interval '2 hours', signed_in),
           signed_in
    FROM generate_series(%(low)s::bigint, %(high)s::bigint - 1) AS u (n)
    CROSS JOIN LATERAL (SELECT pg_temp.pick(%(first_names)s::text[], 'first', u.n) AS first,
                               pg_temp.pick(%(last_names)s::text[], 'last', u.n) AS last,
                               pg_temp.joined(u.n, %(until)s) AS joined) AS person
    CROSS JOIN LATERAL (SELECT {LAST_SIGN_IN} AS signed_in) AS login
"""

ACCOUNTS_SQL = f"""
    INSERT INTO accounts (id, "userId", type, provider, "providerAccountId", refresh_token, access_token, expires_at, token_type, scope, id_token)
    SELECT pg_temp.make_id('accounts', row.k), pg_temp.make_id('users', u.n), 'oauth',
           (ARRAY['google','facebook','apple'])[s.place], %(seed)s || '-' || row.k,
           'demo-refresh-' || md5(row.k::text), 'demo-access-' || md5('a' || row.k),
           extract(epoch FROM %(until)s::timestamptz)::int + 3600, 'Bearer', 'openid email profile', 'demo-id-' || md5('i' || row.k)
    {per_user("CASE WHEN pg_temp.dice('accounts many', u.n) < 0.5 THEN 1 WHEN pg_temp.dice('accounts many', u.n) < 0.55 THEN 2 ELSE 0 END")}
"""

SESSIONS_SQL = f"""
    INSERT INTO sessions (id, "sessionToken", "userId", expires)
    SELECT pg_temp.make_id('sessions', row.k), 'demo-session-' || %(seed)s || '-' || md5(row.k::text), pg_temp.make_id('users', u.n), %(until)s::timestamptz + interval '20 days'
    {per_user("CASE WHEN pg_temp.dice('sessions many', u.n) < 0.02 THEN 1 ELSE 0 END")}
"""

VERIFICATION_TOKENS_SQL = f"""
    INSERT INTO verification_tokens (identifier, token, expires, id)
    SELECT lower(pg_temp.pick(%(first_names)s::text[], 'first', u.n) || '.' || pg_temp.pick(%(last_names)s::text[], 'last', u.n)) || '.' || u.n || '.' || %(seed)s || %(domain)s, 'demo-token-' || %(seed)s || '-' || md5(row.k::text), %(until)s::timestamptz + interval '1 day', pg_temp.make_id('verification', row.k)
    {per_user("CASE WHEN pg_temp.dice('verification many', u.n) < 0.05 THEN 1 ELSE 0 END")}
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
    {per_user("CASE WHEN pg_temp.dice('preferences many', u.n) < 0.7 THEN 1 ELSE 0 END")}
"""

# Parents before children.
ROWS = {
    User: USERS_SQL,
    Account: ACCOUNTS_SQL,
    Session: SESSIONS_SQL,
    VerificationToken: VERIFICATION_TOKENS_SQL,
    UserPreferences: USER_PREFERENCES_SQL,
}
