package e2e

import (
	"sync"
	"time"
)

// stalls are the times for which the machine did not let this process run. What is
// measured meanwhile says nothing of the chapter.
var stalls struct {
	sync.Mutex
	ends  []time.Time
	times []time.Duration
}

func watchStalls() {
	const period = 100 * time.Millisecond
	last := time.Now()
	for range time.Tick(period) {
		now := time.Now()
		if gap := now.Sub(last) - period; gap > period {
			stalls.Lock()
			stalls.ends = append(stalls.ends, now)
			stalls.times = append(stalls.times, gap)
			stalls.Unlock()
		}
		last = now
	}
}

// stalled is how long this process stood still in all from a little before one time to another.
func stalled(from, to time.Time) (sum time.Duration) {
	stalls.Lock()
	defer stalls.Unlock()
	for i, end := range stalls.ends {
		if begin := end.Add(-stalls.times[i]); begin.Before(to.Add(time.Second)) && end.After(from.Add(-time.Second)) {
			sum += stalls.times[i]
		}
	}
	return sum
}
