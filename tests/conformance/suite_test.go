// SPDX-License-Identifier: Apache-2.0

// Package conformance runs containerd's own snapshotter suite against a server binary, through the
// proxy snapshotter that containerd uses for proxy plugins. It needs root, since the suite mounts.
//
//	STRATA_SERVER  the server; started as `$STRATA_SERVER --root DIR --socket PATH`
//	STRATA_MODE    shared: one server takes all tests at once; each: every test has its own, on the
//	               root the suite made for it (the default)
//	STRATA_KIND    the name the suite is given: overlayfs, native, ... (default: from the binary)
//
// Everything lives beneath one directory in TMPDIR. At the end that directory is gone, whatever was
// mounted in it is detached, and no server runs, also after a failure, a signal or the time limit.
package conformance

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime/pprof"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/defaults"
	"github.com/containerd/containerd/errdefs"
	"github.com/containerd/containerd/log"
	"github.com/containerd/containerd/pkg/dialer"
	"github.com/containerd/containerd/snapshots"
	"github.com/containerd/containerd/snapshots/proxy"
	"github.com/containerd/containerd/snapshots/testsuite"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
)

const (
	startLimit = 20 * time.Second // from exec to the first answer
	stopLimit  = 20 * time.Second // from SIGTERM to the exit
	runLimit   = 5 * time.Minute  // the whole run, when go test's own -test.timeout is not given

	logTailBytes = 8 << 10 // of each server, printed when the run failed

	// sun_path holds 108 bytes including the final zero.
	socketPathBytes = 107

	exitSkipped = 77 // what meson takes for "skipped"
)

var (
	serverPath = flag.String("server", os.Getenv("STRATA_SERVER"), "server binary under test")
	mode       = flag.String("mode", envOr("STRATA_MODE", "each"), "shared or each")
	kind       = flag.String("kind", os.Getenv("STRATA_KIND"), "name given to the suite")

	bench = &workbench{}
)

func envOr(name, fallback string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return fallback
}

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(runAll(m))
}

func runAll(m *testing.M) int {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "SKIPPED: the snapshotter suite mounts and needs root")
		return exitSkipped
	}
	if err := checkFlags(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	if err := bench.create(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}

	// The suite makes names from math/rand, which Go before 1.20 seeds alike in every run: a second
	// run on one store would meet the names of the first.
	seed := time.Now().UnixNano()
	rand.Seed(seed)
	fmt.Printf("suite %s, server %s, mode %s, seed %d\n", *kind, *serverPath, *mode, seed)

	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	limit := timeLimit()
	code := make(chan int, 1)
	go func() { code <- m.Run() }()

	result := 1
	select {
	case result = <-code:
	case s := <-interrupted:
		fmt.Fprintf(os.Stderr, "%v: stopping\n", s)
	case <-time.After(limit):
		// The suite's calls carry no deadline, so a server that does not answer ends here.
		fmt.Fprintf(os.Stderr, "not done after %v; goroutines:\n", limit)
		_ = pprof.Lookup("goroutine").WriteTo(os.Stderr, 1)
	}
	if err := bench.destroy(result != 0); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return result
}

func checkFlags() error {
	if *serverPath == "" {
		return errors.New("STRATA_SERVER (or -server) must name the server binary")
	}
	if *mode != "shared" && *mode != "each" {
		return fmt.Errorf("STRATA_MODE is '%s', not shared or each", *mode)
	}
	// The tests run in many working directories.
	path, err := filepath.Abs(*serverPath)
	if err != nil {
		return err
	}
	*serverPath = path
	if *kind == "" {
		*kind = kindOf(filepath.Base(path))
	}
	return nil
}

// kindOf knows the binaries strata-native and peer-native, strata-fuse-overlayfs, and the like.
func kindOf(binary string) string {
	for _, kind := range []string{"native", "fuse-overlayfs", "stargz"} {
		if strings.Contains(binary, kind) {
			return kind
		}
	}
	return "overlayfs"
}

// timeLimit leaves room before -test.timeout, whose panic would skip every cleanup.
func timeLimit() time.Duration {
	if given, ok := flag.Lookup("test.timeout").Value.(flag.Getter); ok {
		if limit, ok := given.Get().(time.Duration); ok && limit > 0 {
			return limit - limit/10
		}
	}
	return runLimit
}

func TestSnapshotter(t *testing.T) {
	open := openOwn
	if *mode == "shared" {
		root, err := os.MkdirTemp(bench.dir, "root-")
		if err != nil {
			t.Fatal(err)
		}
		s, err := bench.start("shared", root)
		if err != nil {
			t.Fatal(err)
		}
		// Runs when the last parallel subtest is done.
		t.Cleanup(func() {
			if err := s.stop(); err != nil {
				t.Error(err)
			}
		})
		open = func(context.Context, string) (snapshots.Snapshotter, func() error, error) {
			return s.snapshotter(), nil, nil
		}
	}
	testsuite.SnapshotterSuite(t, *kind, open)
}

// openOwn starts a server for the one test that the suite made root for.
func openOwn(ctx context.Context, root string) (snapshots.Snapshotter, func() error, error) {
	label := filepath.Base(filepath.Dir(root))
	// Into the log of the test, which nothing else here is told the name of.
	log.G(ctx).Infof("own server, called %s in what follows the tests", label)
	s, err := bench.start(label, root)
	if err != nil {
		return nil, nil, err
	}
	return s.snapshotter(), s.stop, nil
}

// workbench owns the directory of the run and the servers in it.
type workbench struct {
	dir string

	mu      sync.Mutex
	servers []*server
	closed  bool // by destroy: a test that is still running gets no more servers
}

func (b *workbench) create() error {
	dir, err := os.MkdirTemp("", "strata-suite-")
	if err != nil {
		return err
	}
	b.dir = dir
	// The suite's own temporary directories then lie beneath ours.
	return os.Setenv("TMPDIR", dir)
}

// start runs a server on root and returns when it answers.
func (b *workbench) start(label, root string) (*server, error) {
	s, err := b.launch(label, root)
	if err != nil {
		return nil, err
	}
	if err := s.waitReady(); err != nil {
		_ = s.stop()
		return nil, fmt.Errorf("%w; its last output:\n%s", err, tail(s.log))
	}
	return s, nil
}

// launch makes the process known to destroy in the same step that starts it.
func (b *workbench) launch(label, root string) (*server, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, errors.New("the run is being ended")
	}
	number := len(b.servers)
	s := &server{
		label:  label,
		socket: filepath.Join(b.dir, fmt.Sprintf("%d.sock", number)),
		log:    filepath.Join(b.dir, fmt.Sprintf("%d.log", number)),
		exited: make(chan struct{}),
	}
	if len(s.socket) > socketPathBytes {
		return nil, fmt.Errorf("'%s' is too long for a socket: use a shorter TMPDIR", s.socket)
	}
	if err := s.exec(root); err != nil {
		return nil, err
	}
	b.servers = append(b.servers, s)
	return s, nil
}

// destroy stops what still runs and removes everything; it fails if something was left mounted.
func (b *workbench) destroy(failed bool) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	for _, s := range b.servers {
		_ = s.stop()
		if failed {
			if text := tail(s.log); text != "" {
				fmt.Fprintf(os.Stderr, "--- last output of the server of %s:\n%s\n", s.label, text)
			}
		}
	}
	// Tests that were cut off go on making files until they meet the missing server.
	for deadline := time.Now().Add(stopLimit); ; time.Sleep(50 * time.Millisecond) {
		left, err := detachBeneath(b.dir)
		if err == nil {
			err = os.RemoveAll(b.dir)
		}
		if err != nil && time.Now().Before(deadline) {
			continue
		}
		if err == nil && len(left) != 0 && !failed {
			err = fmt.Errorf("left mounted: %s", strings.Join(left, ", "))
		}
		return err
	}
}

// detachBeneath unmounts everything beneath dir, innermost first, and names what it unmounted.
func detachBeneath(dir string) ([]string, error) {
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	if err != nil {
		return nil, err
	}
	points := make([]string, 0, len(mounts))
	for _, m := range mounts {
		points = append(points, m.Mountpoint)
	}
	sort.Sort(sort.Reverse(sort.StringSlice(points)))
	for _, point := range points {
		if err := unix.Unmount(point, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
			return points, fmt.Errorf("unmount '%s': %w", point, err)
		}
	}
	return points, nil
}

// server is one running process and the connection to it.
type server struct {
	label  string
	socket string
	log    string

	process *os.Process
	exited  chan struct{} // closed once the process is reaped
	exit    error         // readable after exited is closed

	mu   sync.Mutex
	conn *grpc.ClientConn // set when the server listens

	stopOnce sync.Once
	stopErr  error
}

func (s *server) exec(root string) error {
	output, err := os.Create(s.log)
	if err != nil {
		return err
	}
	defer output.Close()
	cmd := exec.Command(*serverPath, "--root", root, "--socket", s.socket)
	cmd.Stdout = output
	cmd.Stderr = output
	if err := cmd.Start(); err != nil {
		return err
	}
	s.process = cmd.Process
	go func() {
		s.exit = cmd.Wait()
		close(s.exited)
	}()
	return nil
}

// waitReady polls the socket and then asks one question, whose only right answer is "not found".
func (s *server) waitReady() error {
	deadline := time.Now().Add(startLimit)
	for {
		conn, err := net.DialTimeout("unix", s.socket, time.Second)
		if err == nil {
			conn.Close()
			break
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the server does not listen after %v: %w", startLimit, err)
		}
		select {
		case <-s.exited:
			return fmt.Errorf("the server ended at once: %v", s.exit)
		case <-time.After(5 * time.Millisecond):
		}
	}
	// As containerd dials its proxy plugins.
	conn, err := grpc.Dial(dialer.DialAddress(s.socket),
		grpc.WithInsecure(),
		grpc.WithContextDialer(dialer.ContextDialer),
		grpc.WithDefaultCallOptions(
			grpc.MaxCallRecvMsgSize(defaults.DefaultMaxRecvMsgSize),
			grpc.MaxCallSendMsgSize(defaults.DefaultMaxSendMsgSize)))
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.conn = conn
	s.mu.Unlock()
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	if _, err := s.snapshotter().Stat(ctx, "no such snapshot"); !errdefs.IsNotFound(err) {
		return fmt.Errorf("stat of a missing key answered: %v", err)
	}
	return nil
}

func (s *server) snapshotter() snapshots.Snapshotter {
	return proxy.NewSnapshotter(snapshotsapi.NewSnapshotsClient(s.conn), *kind)
}

// stop ends the process, by SIGTERM and after the limit by SIGKILL. It fails unless the process
// ended by itself with status 0. Later calls repeat the first one's result.
func (s *server) stop() error {
	s.stopOnce.Do(func() { s.stopErr = s.stopNow() })
	return s.stopErr
}

func (s *server) stopNow() error {
	s.mu.Lock()
	if s.conn != nil {
		s.conn.Close()
	}
	s.mu.Unlock()
	select {
	case <-s.exited:
		return fmt.Errorf("the server of %s ended before it was asked to: %v", s.label, s.exit)
	default:
	}
	if err := s.process.Signal(unix.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-s.exited:
	case <-time.After(stopLimit):
		_ = s.process.Kill()
		<-s.exited
		return fmt.Errorf("the server of %s ignored SIGTERM for %v", s.label, stopLimit)
	}
	if s.exit != nil {
		return fmt.Errorf("the server of %s did not stop cleanly: %v", s.label, s.exit)
	}
	return nil
}

// tail returns the end of a file, from a line start; nothing if it cannot be read.
func tail(path string) string {
	file, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer file.Close()
	cut := false
	if info, err := file.Stat(); err == nil && info.Size() > logTailBytes {
		_, err := file.Seek(-logTailBytes, io.SeekEnd)
		cut = err == nil
	}
	text, err := io.ReadAll(io.LimitReader(file, logTailBytes))
	if err != nil {
		return ""
	}
	if line := bytes.IndexByte(text, '\n'); cut && line >= 0 {
		text = text[line+1:]
	}
	return strings.TrimRight(string(text), "\n")
}
