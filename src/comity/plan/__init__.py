"""What a training run will need, from its settings alone: memory, tokens, time, judge calls and their price.

architectures  the numbers of a model: shipped for the named ones, else from its configuration
devices        memory, arithmetic and bandwidth of accelerators
workload       the replies and verdicts of one dialogue, counted by playing the protocol with texts of given length
judge_models   the models that judges load beside the policy
memory         bytes on each device
llama_memory   bytes of our own code for a Llama on the CPU
speed          seconds of a step
plan           all of it for one run
checks         everything of a run that can be tried without its weights

The formulas stand in docs/scaling.md, "The planner".
"""
