"""Judges decide whether two sides agreed and how far an answer enlarges everybody's agency.

labels      labelled rows that heads are fitted and tested on
features    a row as a prompt, and the base model's hidden states pooled over its parts
head        the fitted ridge head: predict, save, load
copying     rules against texts that repeat themselves or copy what they answer
embedded    both judges from a head and the frozen base model
llm         both judges from whoever answers the judge prompts, behind an address too
named       what a judge's name means, and the judge behind it
ensemble    several judges as one
cascade     a head first, another judge for the rows that it is unsure of
preference  which of two answers is better, asked in both orders
calibrate   fit a head, with its settings chosen by cross-validation, and test it on held-out rows
selection   the cross-validation behind `calibrate`
metrics     what a head's scores are measured by
reliability how far a head can be believed on held-out rows, and when to ask another judge
casino      human negotiations as an outside check of an agreement judge
panel       the judges of one run side by side
signs       signs in the text that a policy games its judge
score       judge the rows of a file

audit             figures of raters against each other: agreement, repeats, length, authors
audit_rows        the rows and verdicts an audit reads
audit_statistics  agreement figures and their intervals over dilemmas
audit_endings     endings taken for agreements, by kind, and on human dialogues
audit_pairwise    judges that compare two answers
audit_run         read, ask, measure, write audit.json
attacks           bad texts with and without an attack, and what a judge says of both
attack_pairs      the same for judges that compare two answers
attack_run        the suite against several judges
attack_prompts    whether prompts and parsers hold against attacks
"""
