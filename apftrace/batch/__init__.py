"""Many traces at once: find them in folders and archives, analyse each in a worker, put the results together.

A folder of results holds, beside what people read, one file per distinct input under the hash of its bytes.
All that is read comes out of those files in one deterministic step at the end, so that a run that was killed
and started again leaves the same bytes as one that nobody disturbed.
"""
