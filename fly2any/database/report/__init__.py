"""The report of dbstatus, dbhealth, dbmaintain, the system checks, /metrics and two pages of the admin.

It is collected once, with waivers applied, then written as text, JSON or SQL.
"""
