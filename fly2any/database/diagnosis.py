def explain(e): return None
