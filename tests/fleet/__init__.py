"""A company's laptops in simulated time: the program's own rules by the thousand, against a model of one API.

Begins at `scenarios`: each is a fleet's hour in which one thing goes wrong. `laptop` is one daemon, `api_model` what it
talks to, `working_day` what a person does to its files, `figures` what is measured. `reality` runs real daemons too.
"""
