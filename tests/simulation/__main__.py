"""Run seeds: `python -m tests.simulation 0-299`, `... 17 --history`, `... 0-999 --jobs 2`."""
import sys
from tests.simulation.run import run
import time
t=time.time()
a,_,b=sys.argv[1].partition("-")
bad=0
for seed in range(int(a), int(b or a)+1):
    f=run(seed)
    if f.law:
        bad+=1
        print(seed, f.law, f.detail[:300], "step", f.step, "of", f.steps)
        if "--history" in sys.argv: print(f.history)
        if bad>=int(sys.argv[2]) if len(sys.argv)>2 and sys.argv[2].isdigit() else False: break
print("bad", bad, "time", time.time()-t)
