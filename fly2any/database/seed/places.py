"""Sources of the demo data: airports, routes, names."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import permutations

import airportsdata

# The busiest airports of the markets that Fly2Any serves; their facts come from airportsdata.
AIRPORTS = [
    "ATL",
    "JFK",
    "LAX",
    "ORD",
    "MIA",
    "DFW",
    "SFO",
    "BOS",
    "SEA",
    "DEN",
    "LAS",
    "MCO",
    "YYZ",
    "YVR",
    "MEX",
    "CUN",
    "GRU",
    "GIG",
    "BSB",
    "SSA",
    "REC",
    "EZE",
    "SCL",
    "BOG",
    "LIM",
    "LIS",
    "OPO",
    "MAD",
    "BCN",
    "CDG",
    "ORY",
    "LHR",
    "LGW",
    "DUB",
    "AMS",
    "FRA",
    "MUC",
    "ZRH",
    "VIE",
    "FCO",
    "MXP",
    "ATH",
    "IST",
    "CPH",
    "OSL",
    "ARN",
    "HEL",
    "WAW",
    "DXB",
    "DOH",
    "CAI",
    "JNB",
    "CPT",
    "NBO",
    "DEL",
    "BOM",
    "BLR",
    "SIN",
    "KUL",
    "BKK",
    "HKG",
    "HND",
    "NRT",
    "ICN",
    "PVG",
    "PEK",
    "SYD",
    "MEL",
    "AKL",
]

AIRLINES = [
    "AA",
    "DL",
    "UA",
    "LA",
    "G3",
    "AD",
    "TP",
    "IB",
    "AF",
    "BA",
    "KL",
    "LH",
    "AZ",
    "TK",
    "EK",
    "QR",
    "SQ",
    "NH",
    "QF",
    "AC",
]

FIRST_NAMES = [
    "Ana",
    "Bruno",
    "Carla",
    "Diego",
    "Elena",
    "Felipe",
    "Grace",
    "Hugo",
    "Inês",
    "João",
    "Karen",
    "Luís",
    "María",
    "Nuno",
    "Olivia",
    "Pedro",
    "Quentin",
    "Rosa",
    "Sofia",
    "Tiago",
    "Ursula",
    "Victor",
    "Wendy",
    "Xavier",
    "Yuki",
    "Zoë",
    "Amir",
    "Beatriz",
    "Chen",
    "Daniel",
    "Emma",
    "François",
    "Giulia",
    "Hannah",
    "Ivan",
    "Julia",
    "Kenji",
    "Laura",
    "Mateus",
    "Noor",
]
LAST_NAMES = [
    "Silva",
    "Santos",
    "Oliveira",
    "Souza",
    "Costa",
    "Pereira",
    "García",
    "Martínez",
    "López",
    "Rossi",
    "Bianchi",
    "Müller",
    "Schmidt",
    "Weber",
    "Dupont",
    "Moreau",
    "Smith",
    "Johnson",
    "Brown",
    "Taylor",
    "Wilson",
    "Tanaka",
    "Suzuki",
    "Wang",
    "Li",
    "Zhang",
    "Kim",
    "Park",
    "Patel",
    "Sharma",
    "Singh",
    "Nguyen",
    "Kowalski",
    "Novák",
    "Ivanov",
    "Haddad",
]


@dataclass(frozen=True, slots=True)
class Route:
    origin: str
    destination: str
    city: str  # of the destination
    country: str
    kilometres: float


def routes() -> list[Route]:
    """Return every ordered pair of the airports that are 300 km apart or more, in an order that never changes."""
    facts = airportsdata.load("IATA")
    pairs = permutations([facts[code] for code in AIRPORTS], 2)
    return [
        Route(a["iata"], b["iata"], b["city"], b["country"], round(kilometres, 1))
        for a, b in pairs
        if (kilometres := _distance(a, b)) >= 300
    ]


def _distance(a: airportsdata.Airport, b: airportsdata.Airport) -> float:
    """Return the great-circle distance in kilometres (haversine)."""
    lat_a, lon_a, lat_b, lon_b = (math.radians(place[axis]) for place in (a, b) for axis in ("lat", "lon"))
    h = math.sin((lat_b - lat_a) / 2) ** 2 + math.cos(lat_a) * math.cos(lat_b) * math.sin((lon_b - lon_a) / 2) ** 2
    return 2 * 6371 * math.asin(math.sqrt(h))
