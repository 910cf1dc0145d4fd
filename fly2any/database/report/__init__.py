"""The report of dbstatus and dbhealth: collected once, waivers applied, then written as text, JSON or SQL."""
