"""The demo data of this app: for each table a statement that creates the rows of users %(low)s to %(high)s - 1."""

from fly2any.database.seed.functions import BROWSERS, ROUTE, per_user

from .models import Conversation, Message

# %(teams)s, %(consultants)s and %(emojis)s are the consultant teams, in one order.
CONVERSATIONS_MANY = (
    "CASE WHEN pg_temp.dice('talks many', u.n) < 0.6 THEN 1 WHEN pg_temp.dice('talks many', u.n) < 0.8 THEN 2 ELSE 0 END"
)
# Most conversations are about a flight, with the first team.
TEAM = "1 + floor(pow(pg_temp.dice('team', row.k), 2) * cardinality(%(teams)s::text[]))::int"
MESSAGES_MANY = "6 + 2 * floor(pg_temp.dice('messages many', row.k) * 5)"

AI_CONVERSATIONS_SQL = f"""
    INSERT INTO ai_conversations (id, "sessionId", "userId", status, "currentConsultantTeam", "conversationContext", "searchHistory", metadata, "createdAt", "updatedAt")
    SELECT pg_temp.make_id('talks', row.k), md5(%(seed)s || '-' || row.k)::uuid::text, CASE WHEN pg_temp.dice('anonymous', row.k) < 0.9 THEN pg_temp.make_id('users', u.n) END,
           status, (%(teams)s::text[])[{TEAM}], jsonb_build_object('destination', r.city), jsonb_build_array(jsonb_build_object('origin', r.origin, 'destination', r.destination)),
           jsonb_strip_nulls(jsonb_build_object('startedAt', ms, 'lastMessageAt', ms + many * 20000, 'completedAt', CASE WHEN status = 'completed' THEN ms + many * 20000 END,
                                                'messageCount', many, 'platform', 'web', 'browser', pg_temp.pick({BROWSERS}, 'browser', row.k))),
           at, at + interval '20 seconds' * many
    {per_user(CONVERSATIONS_MANY)} {ROUTE.format(salt="talks")}
    CROSS JOIN LATERAL (SELECT pg_temp.moment('talks', row.k, u.n, %(until)s) - interval '6 minutes' AS at, pg_temp.pick(ARRAY['active','completed','completed','abandoned'], 'status', row.k) AS status, ({MESSAGES_MANY})::int AS many) AS t
    CROSS JOIN LATERAL (SELECT (extract(epoch FROM at) * 1000)::bigint AS ms) AS m
"""

AI_MESSAGES_SQL = f"""
    INSERT INTO ai_messages (id, "conversationId", role, content, "consultantName", "consultantTeam", "consultantEmoji", "flightResults", "hotelResults", timestamp, "createdAt")
    SELECT md5(%(seed)s || '-' || row.k || '-' || said.turn)::uuid::text, pg_temp.make_id('talks', row.k),
           CASE WHEN by_us THEN 'assistant' ELSE 'user' END,
           CASE WHEN pg_temp.dice('encrypted', row.k) < 0.1 THEN 'v1:' || md5('iv' || row.k || said.turn) || ':' || md5('tag' || row.k || said.turn) || ':' || md5('text' || row.k || said.turn)
                WHEN offers THEN 'I can offer you ' || airline || ' ' || flight || ' from ' || r.origin || ' to ' || r.city || ' for ' || price || ' USD.'
                WHEN by_us THEN pg_temp.pick(ARRAY['Here is what I found from ', 'These are the options from ', 'Let me check that for you: '], 'answer', row.k + said.turn) || r.origin || ' to ' || r.city || '.'
                ELSE pg_temp.pick(ARRAY['Can I fly direct from ', 'How much is it from ', 'Can I change my trip from ', 'Do I need a visa from '], 'question', row.k + said.turn) || r.origin || ' to ' || r.city || '?' END,
           CASE WHEN by_us THEN (%(consultants)s::text[])[team] END, CASE WHEN by_us THEN (%(teams)s::text[])[team] END, CASE WHEN by_us THEN (%(emojis)s::text[])[team] END,
           CASE WHEN offers THEN jsonb_build_array(jsonb_build_object('id', 'offer-' || row.k, 'airline', airline, 'flightNumber', airline || ' ' || flight,
                'outbound', jsonb_build_object('departure', jsonb_build_object('airport', r.origin, 'time', to_char(at + interval '30 days', 'YYYY-MM-DD"T"09:30')), 'arrival', jsonb_build_object('airport', r.destination, 'time', to_char(at + interval '30 days', 'YYYY-MM-DD"T"18:05')), 'duration', 'PT8H35M', 'stops', 0),
                'price', jsonb_build_object('amount', price::text, 'currency', 'USD'), 'cabinClass', 'economy', 'seatsAvailable', 4)) END,
           CASE WHEN said.turn = 2 AND team = 2 THEN jsonb_build_array(jsonb_build_object('id', 'hotel-' || row.k, 'name', 'Hotel ' || r.city, 'rating', 4.2, 'address', r.city, 'pricePerNight', 120, 'totalPrice', 360,
                'currency', 'USD', 'amenities', jsonb_build_array('wifi', 'breakfast'), 'checkIn', to_char(at, 'YYYY-MM-DD'), 'checkOut', to_char(at + interval '3 days', 'YYYY-MM-DD'))) END,
           (extract(epoch FROM at) * 1000)::bigint + said.turn * 20000, at + interval '20 seconds' * said.turn
    {per_user(CONVERSATIONS_MANY)} {ROUTE.format(salt="talks")}
    CROSS JOIN LATERAL generate_series(1, ({MESSAGES_MANY})::int) AS said (turn)
    CROSS JOIN LATERAL (SELECT said.turn %% 2 = 0 AS by_us, pg_temp.moment('talks', row.k, u.n, %(until)s) - interval '6 minutes' AS at,
                               {TEAM} AS team) AS t
    CROSS JOIN LATERAL (SELECT said.turn = 2 AND team = 1 AS offers, pg_temp.pick(%(airlines)s::text[], 'airline', row.k) AS airline, row.k / 10000 %% 900 + 100 AS flight,
                               CASE WHEN said.turn = 2 AND team = 1 THEN pg_temp.price(r.kilometres, 30, pg_temp.dice('offer', row.k)) END AS price) AS o
"""

# Parents before children.
ROWS = {
    Conversation: AI_CONVERSATIONS_SQL,
    Message: AI_MESSAGES_SQL,
}
