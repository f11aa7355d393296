"""Write new scenario rows with a model: planned by slot, checked, kept reply by reply, continued after a kill.

plan        what each slot asks for: tier, domain, place or theme, split, examples
replies     a model's reply as a checked row, or what is wrong with it
journal     every reply as soon as it arrived
run         ask, settle, ask again, write the file
"""
