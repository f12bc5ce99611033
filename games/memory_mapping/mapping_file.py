"""The mapping file: what a user takes away, as JSON.

Schema `compiler-rl/memory-mapping/1`. Steps are indices into `Program.steps`, the full flattened
schedule (not the problem's shorter line); an interval [start, end) of steps is half-open; a copy
window [start, done) runs during those steps. Beside each step stands the name of the instruction.

    {
      "schema": "compiler-rl/memory-mapping/1",
      "program": {"name", "source", "fingerprint"},
      "chip": {every field of Chip},
      "fast_memory": bytes that values may use,
      "objective": modelled seconds, "all_slow": modelled seconds, "unit": "s",
      "method": who found it,
      "values": [one row for each value of the program, in schedule order
        {
          "value": position, as `Value.position`,
          "shape", "size": bytes rounded up to the alignment,
          "alias_class": index into Program.buffers,
          "memory_space": "fast" | "slow" | "mixed" | "fixed"  (fixed: prescribed by the program),
          "stays": [  (the stays of its alias class that this value is part of)
            {
              "offset": bytes,
              "start": step, "end": step, "start_instruction", "last_instruction",
              "copy_in": null | {"start": step, "done": step,
                                 "start_before": instruction, "done_before": instruction},
              "copy_out": null | {the same; instruction names are null for the end of the program}
            }
          ],
          "produced_in": "fast" | "slow",
          "uses": [{"instruction", "step", "operand", "index", "memory_space": "fast" | "slow"}],
          "why_slow": null | one line, for a value that is not in fast memory all its life
        }
      ]
    }

A stay is a stay of the whole alias class: values of one class that are live in one of its steps
must all list it, alike (that is what the validator means by a broken alias). A value lists a stay
if one of its own accesses (definition or use) is in a step of the stay, or it is live throughout.
"""
