"""Values seen in the text columns of this app. The database has no constraint: any other value must display too."""

from django.db.models import TextChoices


class Status(TextChoices):
    ACTIVE = "active", "Active"
    COMPLETED = "completed", "Completed"
    ABANDONED = "abandoned", "Abandoned"


class Role(TextChoices):
    USER = "user", "User"
    ASSISTANT = "assistant", "Assistant"
    SYSTEM = "system", "System"


class Team(TextChoices):
    FLIGHT_OPERATIONS = "flight-operations", "Flight operations: Sarah Chen ✈️"
    HOTEL_ACCOMMODATIONS = "hotel-accommodations", "Hotel accommodations: Marcus Rodriguez 🏨"
    LEGAL_COMPLIANCE = "legal-compliance", "Legal compliance: Dr. Emily Watson ⚖️"
    PAYMENT_BILLING = "payment-billing", "Payment and billing: David Park 💳"
    CUSTOMER_SERVICE = "customer-service", "Customer service: Lisa Thompson ✈️"
    TRAVEL_INSURANCE = "travel-insurance", "Travel insurance: Robert Martinez 🛡️"
    VISA_DOCUMENTATION = "visa-documentation", "Visa documentation: Sophia Nguyen 📄"
    CAR_RENTAL = "car-rental", "Car rental: James Anderson 🚗"
    LOYALTY_REWARDS = "loyalty-rewards", "Loyalty rewards: Amanda Foster 🎁"
    CRISIS_MANAGEMENT = "crisis-management", "Crisis management: Captain Mike Johnson 🚨"
    TECHNICAL_SUPPORT = "technical-support", "Technical support: Alex Kumar 💻"
    SPECIAL_SERVICES = "special-services", "Special services: Nina Davis ♿"
