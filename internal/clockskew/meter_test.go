package clockskew

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// response is one measurement: what the local clock showed, and what the server's.
type response struct {
	sent, received, date time.Duration
}

func TestMeter(t *testing.T) {
	for name, tc := range map[string]struct {
		known     time.Duration
		responses []response
		want      []time.Duration
	}{
		"an exact clock":                       {0, []response{{0, 0, 0}, {0, 0, 0}}, nil},
		"within the tolerance":                 {0, []response{{0, 0, 3 * time.Second}, {0, 0, 3 * time.Second}}, nil},
		"one response is no proof":             {0, []response{{0, 0, time.Hour}}, nil},
		"an hour behind":                       {0, []response{{0, 0, time.Hour}, {0, 0, time.Hour}}, []time.Duration{time.Hour + dateStep/2}},
		"an hour ahead":                        {0, []response{{0, 0, -time.Hour}, {0, 0, -time.Hour}}, []time.Duration{-time.Hour + dateStep/2}},
		"a wrong API server among others":      {0, []response{{0, 0, time.Hour}, {0, 0, 0}, {0, 0, time.Hour}}, nil},
		"wrong in two ways":                    {0, []response{{0, 0, time.Hour}, {0, 0, -time.Hour}}, nil},
		"a slow response tells nothing":        {0, []response{{0, time.Minute, 30 * time.Second}, {0, time.Minute, 30 * time.Second}}, nil},
		"a slow response tells of an hour":     {0, []response{{0, time.Minute, time.Hour}, {0, time.Minute, time.Hour}}, []time.Duration{time.Hour - 30*time.Second + dateStep/2}},
		"the clock was set back meanwhile":     {0, []response{{time.Hour, 0, 0}, {time.Hour, 0, 0}}, nil},
		"a correction that holds stays":        {time.Hour, []response{{0, 0, time.Hour}, {0, 0, time.Hour}}, nil},
		"a correction that is obsolete goes":   {time.Hour, []response{{0, 0, 0}, {0, 0, 0}}, []time.Duration{0}},
		"a correction that is not enough":      {time.Hour, []response{{0, 0, 2 * time.Hour}, {0, 0, 2 * time.Hour}}, []time.Duration{2*time.Hour + dateStep/2}},
		"beyond the tolerance for sure":        {0, []response{{0, 0, Tolerance + time.Millisecond}, {0, 0, Tolerance + time.Millisecond}}, []time.Duration{Tolerance + time.Millisecond + dateStep/2}},
		"perhaps just within it, perhaps not":  {0, []response{{0, 0, Tolerance - dateStep/2}, {0, 0, Tolerance - dateStep/2}}, nil},
		"two servers that disagree by seconds": {0, []response{{0, 0, time.Hour}, {0, 0, time.Hour + 3*time.Second}, {0, 0, time.Hour}}, []time.Duration{time.Hour + 3*time.Second + dateStep/2}},
	} {
		t.Run(name, func(t *testing.T) {
			var got []time.Duration
			m := NewMeter(time.Now, tc.known, func(correction time.Duration) { got = append(got, correction) })
			for _, r := range tc.responses {
				m.Observe(noon.Add(r.date), noon.Add(r.sent), noon.Add(r.received))
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// Whatever the offset, and wherever in the round trip the server looked at its clock: after two responses that took less
// than a second, the corrected clock is wrong by no more than the tolerance, and never more wrong than the clock itself
// by more than what the measurement leaves open.
func TestCorrectedClockIsWithinTheTolerance(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		local := noon
		offset := time.Duration(rapid.Int64Range(int64(-48*time.Hour), int64(48*time.Hour)).Draw(t, "offset"))
		correction := time.Duration(rapid.Int64Range(int64(-time.Hour), int64(time.Hour)).Draw(t, "correction known from earlier"))
		m := NewMeter(time.Now, correction, func(c time.Duration) { correction = c })
		for range 2 {
			outward := time.Duration(rapid.Int64Range(0, int64(time.Second/2)).Draw(t, "outward"))
			back := time.Duration(rapid.Int64Range(0, int64(time.Second/2)).Draw(t, "back"))
			sent := local
			date := sent.Add(outward + offset).Truncate(dateStep)
			local = sent.Add(outward + back)
			m.Observe(date, sent, local)
		}
		if wrong := (offset - correction).Abs(); wrong > Tolerance+2*dateStep {
			t.Fatalf("the offset is %v and the correction %v", offset, correction)
		}
	})
}

func TestTransportMeasures(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Date", time.Now().Add(time.Hour).UTC().Format(http.TimeFormat))
	}))
	defer server.Close()
	var got time.Duration
	m := NewMeter(time.Now, 0, func(correction time.Duration) { got = correction })
	client := &http.Client{Transport: m.Wrap(http.DefaultTransport)}
	for range 2 {
		response, err := client.Get(server.URL)
		if err != nil {
			t.Fatal(err)
		}
		if err := response.Body.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if wrong := (got - time.Hour).Abs(); wrong > Tolerance {
		t.Errorf("the correction is %v", got)
	}
	server.Close()
	response, err := client.Get(server.URL)
	if err == nil {
		t.Errorf("a server that is gone answered %d, %v", response.StatusCode, response.Body.Close())
	}
}

func TestProberConfirmsAWrongClockAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var correction time.Duration
		m := NewMeter(time.Now, 0, func(c time.Duration) { correction = c })
		p := &Prober{Meter: m, Every: time.Minute, Ask: func(context.Context) error {
			m.Observe(time.Now().Add(time.Hour), time.Now(), time.Now())
			return nil
		}}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- p.Start(ctx) }()
		synctest.Wait()
		if wrong := (correction - time.Hour).Abs(); wrong > Tolerance {
			t.Errorf("at the start the correction is %v", correction)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestProberAsksOnlyWhenNothingElseDoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMeter(time.Now, 0, func(time.Duration) {})
		var asked atomic.Int32
		p := &Prober{Meter: m, Every: time.Minute, Ask: func(context.Context) error {
			if asked.Add(1) > 2 {
				return errors.New("the API server is away")
			}
			m.Observe(time.Now(), time.Now(), time.Now())
			return nil
		}}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- p.Start(ctx) }()
		synctest.Wait()
		if asked.Load() != 1 {
			t.Errorf("asked %d times at the start, want once", asked.Load())
		}
		for range 100 {
			<-time.After(10 * time.Second)
			m.Observe(time.Now(), time.Now(), time.Now())
		}
		if asked.Load() != 1 {
			t.Errorf("asked %d times while responses came", asked.Load())
		}
		<-time.After(10 * time.Minute)
		if asked.Load() < 10 {
			t.Errorf("asked %d times in ten quiet minutes", asked.Load())
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
