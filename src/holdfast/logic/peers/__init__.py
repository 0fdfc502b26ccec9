"""How devices find each other with no server in between (seed 003, "Node Discovery").

`windows` says when which port is open, `book` who is where, `planner` what to do next.
"""
