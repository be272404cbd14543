"""Measures the peers of ``../peers`` against each other: what, whom, how, and how to show it.

======================  ========================================================================================
``workloads``           what is measured: one table each
``contenders``          who is measured, what each can do, and what it promises
``clusters``            the same of those who start workers
``processes``           starting, watching and ending a contender's processes; their CPU time and memory
``measuring``           one measurement, and the rounds of all
``results``             what the rounds gave: medians, spreads, ratios within a round
``targets``             what pyipc is to reach, as data
``command``             what this command and ``hostile.py`` have in common
``environment``         what was measured on what
``tables``, ``report``  for people: one table; all of them, as text and as Markdown
``charts``              for people: SVG
======================  ========================================================================================
"""
