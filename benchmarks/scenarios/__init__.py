"""The same hostile tests against every library of ``../victims``: what is done to it, and what is then to be seen.

======================  ========================================================================================
``libraries``           to whom it is done, and to whom it does not apply
``scenario``            what a scenario is: columns, and a function that fills them for one library
``stage``               the processes of one scenario: starting, watching and ending them
``bystander``           a client that has done nothing and only wants its answers
``wires``               the bytes of each library, for peers that are none
``half``                a peer that is killed in the middle of a message
``slow_reader`` ...     a scenario each; `battery` has all
``report``              for people: text, Markdown, JSON
======================  ========================================================================================
"""
