// A client of the Reactorcide REST API, and a program that gives a tour of it.
//
// The type Client is meant to be copied: it needs only the standard library. The program below it
// creates jobs, follows them, reads logs and artifacts, cancels, lists and deletes; see --help.
// api_client.py is the same in Python.
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"time"
)

// maxWait is how long one request waits for a change. The service allows 60 s, but it waits from the status that
// the job has when the request arrives: one that changed just before then is seen only after this time.
const maxWait = 5 * time.Second

// Status is where a job is in its life.
type Status string

const (
	Submitted    Status = "submitted"
	Queued       Status = "queued"
	Running      Status = "running"
	Completed    Status = "completed"
	Failed       Status = "failed"
	Cancelled    Status = "cancelled"
	SubmitFailed Status = "submit_failed"
)

// Final tells whether the status will not change any more.
func (s Status) Final() bool {
	return s == Completed || s == Failed || s == Cancelled
}

// JobDefinition is what a job is created from. What is left out gets the service's default.
type JobDefinition struct {
	Name           string            `json:"name"`
	JobCommand     string            `json:"job_command"` // run by /bin/sh -ec
	SourceType     string            `json:"source_type"` // git or copy
	Description    string            `json:"description,omitempty"`
	GitURL         string            `json:"git_url,omitempty"`
	GitRef         string            `json:"git_ref,omitempty"`
	SourcePath     string            `json:"source_path,omitempty"`
	RunnerImage    string            `json:"runner_image,omitempty"`
	JobEnvVars     map[string]string `json:"job_env_vars,omitempty"`
	QueueName      string            `json:"queue_name,omitempty"`
	TimeoutSeconds int               `json:"timeout_seconds,omitempty"`
	Priority       int               `json:"priority,omitempty"`
	CodeDir        string            `json:"code_dir,omitempty"`
	JobDir         string            `json:"job_dir,omitempty"`
	CPULimit       float64           `json:"cpu_limit,omitempty"`
	MemoryLimit    any               `json:"memory_limit,omitempty"` // bytes, or "512m"
}

// Job is a job as every call returns it: its definition and what became of it.
type Job struct {
	JobDefinition
	JobID              string     `json:"job_id"`
	UserID             string     `json:"user_id"`
	Status             Status     `json:"status"`
	CreatedAt          time.Time  `json:"created_at"`
	UpdatedAt          time.Time  `json:"updated_at"`
	QueuedAt           *time.Time `json:"queued_at"`
	StartedAt          *time.Time `json:"started_at"`
	CompletedAt        *time.Time `json:"completed_at"`
	ExitCode           *int       `json:"exit_code"`
	Error              string     `json:"error"`
	Attempt            int        `json:"attempt"`
	WorkerID           string     `json:"worker_id"`
	CorndogsTaskID     string     `json:"corndogs_task_id"`
	LogsObjectKey      string     `json:"logs_object_key"`
	ArtifactsObjectKey string     `json:"artifacts_object_key"`
	RerunOf            string     `json:"rerun_of"`
	Pinned             bool       `json:"pinned"`
}

// JobFilter chooses jobs to list; its zero value chooses all.
type JobFilter struct {
	Statuses   []Status
	QueueName  string
	SourceType string
	NamePrefix string
}

// JobPage is one page of a listing, newest job first; NextCursor is empty on the last.
type JobPage struct {
	Jobs       []Job  `json:"jobs"`
	Total      int    `json:"total"`
	Limit      int    `json:"limit"`
	Offset     int    `json:"offset"`
	NextCursor string `json:"next_cursor"`
}

// Artifact is a file that a job left behind: Path below the artifacts directory, Size in bytes.
type Artifact struct {
	Path   string `json:"path"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// Health says that the service is up, which version it is, and whether it knows the token.
type Health struct {
	Status       string `json:"status"`
	Version      string `json:"version"`
	Verification struct {
		Verified          bool   `json:"verified"`
		UserAuthenticated bool   `json:"user_authenticated"`
		UserID            string `json:"user_id"`
	} `json:"verification"`
}

// NetworkError means that the service could not be reached, or that the connection broke or fell silent.
type NetworkError struct {
	BaseURL string
	Err     error
}

func (e *NetworkError) Error() string {
	err := e.Err
	if wrapped := (*url.Error)(nil); errors.As(err, &wrapped) {
		err = wrapped.Err // without the method and the address, which say nothing new
	}
	return fmt.Sprintf("no answer from %s: %v", e.BaseURL, err)
}

func (e *NetworkError) Unwrap() error { return e.Err }

// WaitTimeoutError means that the job had not ended when the time to wait for it was over. It goes on.
type WaitTimeoutError struct {
	Job     Job
	Timeout time.Duration
}

func (e *WaitTimeoutError) Error() string {
	return fmt.Sprintf("job %s is still %s after %g s", e.Job.JobID, e.Job.Status, e.Timeout.Seconds())
}

// APIError is an answer that is not a success. AuthenticationError, InvalidRequestError and ServerError
// say which kind.
type APIError struct {
	Status    int
	RequestID string
	Code      string       `json:"error"`
	Message   string       `json:"message"`
	Details   []FieldError `json:"details"`
}

// FieldError is what is wrong with one field of a request.
type FieldError struct {
	Field   string `json:"field"`
	Message string `json:"message"`
}

func (e *APIError) Error() string {
	var where, request string
	if len(e.Details) > 0 {
		var fields []string
		for _, detail := range e.Details {
			fields = append(fields, detail.Field+": "+detail.Message)
		}
		where = " (" + strings.Join(fields, "; ") + ")"
	}
	if e.RequestID != "" {
		request = ", request " + e.RequestID
	}
	return fmt.Sprintf("%s%s [%d %s%s]", strings.TrimRight(e.Message, "."), where, e.Status, e.Code, request)
}

// AuthenticationError is a 401 or 403: the token is missing, unknown, expired, or not allowed to do this.
type AuthenticationError struct{ *APIError }

// InvalidRequestError is a 400: a field or parameter is wrong; Details says which and why.
type InvalidRequestError struct{ *APIError }

// ServerError is any other answer: no such job, a conflict, too many requests, a fault of the service.
type ServerError struct{ *APIError }

// Client gives access to the jobs of a Reactorcide service.
//
// Every method returns a NetworkError, or the APIError that fits the answer. Concurrent use is safe.
type Client struct {
	baseURL string
	token   string
	timeout time.Duration
	http    *http.Client
}

// NewClient makes a client; timeout is how long the service may take to connect and to answer.
func NewClient(baseURL, token string, timeout time.Duration) (*Client, error) {
	if !strings.HasPrefix(baseURL, "http://") && !strings.HasPrefix(baseURL, "https://") {
		return nil, fmt.Errorf("the URL of the service must start with http:// or https://, not '%s'", baseURL)
	}
	unprintable := func(r rune) bool { return r < ' ' || r > '~' }
	if token == "" || strings.IndexFunc(token, unprintable) >= 0 {
		return nil, errors.New("the token must be a line of printable ASCII characters")
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DialContext = (&net.Dialer{Timeout: timeout}).DialContext
	return &Client{strings.TrimRight(baseURL, "/"), token, timeout, &http.Client{Transport: transport}}, nil
}

// Health asks whether the service is up. A token that it does not know is no error here.
func (c *Client) Health(ctx context.Context) (health Health, err error) {
	err = c.call(ctx, "GET", "/health", nil, &health)
	return health, err
}

// CreateJob creates a job; it is queued at once. Each call makes another one.
func (c *Client) CreateJob(ctx context.Context, definition JobDefinition) (job Job, err error) {
	err = c.call(ctx, "POST", "/jobs", definition, &job)
	return job, err
}

// GetJob gets a job: now or, with a wait (at most 60 s), when its status changes or that time is over.
// A job in a final status is returned at once.
func (c *Client) GetJob(ctx context.Context, jobID string, wait time.Duration) (job Job, err error) {
	path := jobPath(jobID)
	if wait > 0 {
		path += fmt.Sprintf("?wait=%.0f", math.Ceil(wait.Seconds()))
	}
	err = c.callWaiting(ctx, wait, "GET", path, nil, &job)
	return job, err
}

// WatchJob calls visit with the job as it is, then after each change of status, until it is final or visit
// returns false; it returns the job as it was last. Changes that follow closely may come as one. A job that
// takes longer than the timeout ends in a WaitTimeoutError.
func (c *Client) WatchJob(
	ctx context.Context, jobID string, timeout time.Duration, visit func(Job) bool,
) (job Job, err error) {
	deadline := time.Now().Add(timeout)
	job, err = c.GetJob(ctx, jobID, 0)
	for err == nil && visit(job) && !job.Status.Final() {
		for seen := job.Status; err == nil && job.Status == seen; {
			left := time.Until(deadline)
			if left <= 0 {
				return job, &WaitTimeoutError{job, timeout}
			}
			if left > maxWait {
				left = maxWait
			}
			job, err = c.GetJob(ctx, jobID, left)
		}
	}
	return job, err
}

// ListJobs gets one page of at most limit (1-1000) jobs, newest first. The first page has the cursor "".
func (c *Client) ListJobs(ctx context.Context, filter JobFilter, limit int, cursor string) (page JobPage, err error) {
	query := url.Values{"limit": {strconv.Itoa(limit)}}
	for _, status := range filter.Statuses {
		query.Add("status", string(status))
	}
	for name, value := range map[string]string{
		"cursor":      cursor,
		"queue_name":  filter.QueueName,
		"source_type": filter.SourceType,
		"name":        filter.NamePrefix,
	} {
		if value != "" {
			query.Set(name, value)
		}
	}
	err = c.call(ctx, "GET", "/jobs?"+query.Encode(), nil, &page)
	return page, err
}

// AllJobs calls visit with all jobs, newest first, getting a page at a time, until visit returns false. Jobs
// created meanwhile are left out.
func (c *Client) AllJobs(ctx context.Context, filter JobFilter, visit func(Job) bool) error {
	for cursor, more := "", true; more; more = cursor != "" {
		page, err := c.ListJobs(ctx, filter, 100, cursor)
		if err != nil {
			return err
		}
		for _, job := range page.Jobs {
			if !visit(job) {
				return nil
			}
		}
		cursor = page.NextCursor
	}
	return nil
}

// CancelJob cancels a job. Cancelling again is fine; a job that ended otherwise is a ServerError (409).
func (c *Client) CancelJob(ctx context.Context, jobID string) (job Job, err error) {
	err = c.call(ctx, "PUT", jobPath(jobID)+"/cancel", nil, &job)
	return job, err
}

// RerunJob creates a new job with the definition of this one.
func (c *Client) RerunJob(ctx context.Context, jobID string) (job Job, err error) {
	err = c.call(ctx, "POST", jobPath(jobID)+"/rerun", nil, &job)
	return job, err
}

// DeleteJob deletes a job with its log and artifacts; one that is still active is cancelled first.
func (c *Client) DeleteJob(ctx context.Context, jobID string) error {
	return c.call(ctx, "DELETE", jobPath(jobID), nil, nil)
}

// Log gets what the job has printed so far, or only the last lines of it if tail is above 0.
func (c *Client) Log(ctx context.Context, jobID string, tail int) (string, error) {
	path := jobPath(jobID) + "/logs"
	if tail > 0 {
		path += "?tail=" + strconv.Itoa(tail)
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	body, err := c.send(ctx, "GET", path, nil)
	if err != nil {
		return "", err
	}
	defer body.Close()
	log, err := io.ReadAll(body)
	return strings.ToValidUTF8(string(log), "\uFFFD"), err
}

// FollowLog reads what the job prints, from the beginning, as it prints it, until it ends.
// A job may be silent for long: only the context limits the time. The caller closes the reader.
func (c *Client) FollowLog(ctx context.Context, jobID string) (io.ReadCloser, error) {
	return c.send(ctx, "GET", jobPath(jobID)+"/logs?follow=true", nil)
}

// ListArtifacts lists the files that the job left in its artifacts directory.
func (c *Client) ListArtifacts(ctx context.Context, jobID string) ([]Artifact, error) {
	var answer struct {
		Artifacts []Artifact `json:"artifacts"`
	}
	err := c.call(ctx, "GET", jobPath(jobID)+"/artifacts", nil, &answer)
	return answer.Artifacts, err
}

// ReadArtifact reads the content of one artifact. The caller closes the reader.
func (c *Client) ReadArtifact(ctx context.Context, jobID, path string) (io.ReadCloser, error) {
	escaped := (&url.URL{Path: "/" + path}).EscapedPath()
	return c.send(ctx, "GET", jobPath(jobID)+"/artifacts"+escaped, nil)
}

func jobPath(jobID string) string {
	return "/jobs/" + url.PathEscape(jobID)
}

// call sends a request and decodes the answer into result, unless that is nil.
func (c *Client) call(ctx context.Context, method, path string, body, result any) error {
	return c.callWaiting(ctx, 0, method, path, body, result)
}

// callWaiting is call for an answer that may take longer than others.
func (c *Client) callWaiting(
	ctx context.Context, wait time.Duration, method, path string, body, result any,
) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout+wait)
	defer cancel()
	answer, err := c.send(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer answer.Close()
	content, err := io.ReadAll(answer)
	if err != nil || result == nil {
		return err
	}
	if json.Unmarshal(content, result) != nil {
		return errorFrom(&http.Response{StatusCode: http.StatusOK}, content)
	}
	return nil
}

// send sends a request and returns the body of the answer, if that is a success.
func (c *Client) send(ctx context.Context, method, path string, body any) (io.ReadCloser, error) {
	var content io.Reader
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		content = bytes.NewReader(encoded)
	}
	request, err := http.NewRequestWithContext(ctx, method, c.baseURL+"/api/v1"+path, content)
	if err != nil {
		return nil, &NetworkError{c.baseURL, err}
	}
	request.Header.Set("Authorization", "Bearer "+c.token)
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := c.http.Do(request)
	if err != nil {
		return nil, &NetworkError{c.baseURL, err}
	}
	answer := &answerBody{response.Body, c.baseURL}
	if response.StatusCode < 400 {
		return answer, nil
	}
	defer answer.Close()
	explanation, err := io.ReadAll(answer)
	if err != nil {
		return nil, err
	}
	return nil, errorFrom(response, explanation)
}

// answerBody makes a connection that breaks half-way a NetworkError, too.
type answerBody struct {
	io.ReadCloser
	baseURL string
}

func (b *answerBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		err = &NetworkError{b.baseURL, err}
	}
	return n, err
}

func errorFrom(response *http.Response, body []byte) error {
	err := &APIError{}
	if json.Unmarshal(body, err) != nil || err.Code == "" {
		// A proxy, or something else altogether.
		err = &APIError{Code: "unknown", Message: "this is no answer of Reactorcide, is the URL right?"}
	}
	err.Status = response.StatusCode
	err.RequestID = response.Header.Get("X-Request-ID")
	switch err.Status {
	case http.StatusBadRequest:
		return &InvalidRequestError{err}
	case http.StatusUnauthorized, http.StatusForbidden:
		return &AuthenticationError{err}
	default:
		return &ServerError{err}
	}
}

// ---------------------------------------------------------------------------------------------------
// The program
// ---------------------------------------------------------------------------------------------------

const epilog = `
environment:
  REACTORCIDE_API_URL    where the service is (required, as http://127.0.0.1:8080)
  REACTORCIDE_API_TOKEN  the token to use (required)

exit codes:
  0    all fine
  1    a job failed
  2    wrong usage, no address or no token
  3    the service could not be reached
  4    the token was refused
  5    the job was refused as invalid
  6    a job took longer than --timeout
  7    any other error of the service
  130  interrupted
`

// Runs the project's own ci.sh if it has one, as examples/sample-project does.
const buildCommand = `if [ -f ci.sh ]; then
    sh ci.sh
else
    echo "Hello from job $REACTORCIDE_JOB_ID"
    ls -la
    date >"$REACTORCIDE_ARTIFACTS_DIR/date.txt"
fi
`

// A job that is cancelled gets SIGTERM first, and time to tidy up.
const endlessCommand = `trap 'echo "Asked to stop: tidying up"; exit 143' TERM
echo "Waiting to be cancelled"
sleep 600 &
wait
`

type options struct {
	source, gitURL, gitRef, image, command string

	timeout time.Duration
	keep    bool
}

func main() {
	os.Exit(run())
}

// run runs the program and returns its exit code.
func run() int {
	options, err := parseOptions()
	if err != nil {
		return fail(2, "%v; see --help.", err)
	}
	token := strings.TrimSpace(os.Getenv("REACTORCIDE_API_TOKEN"))
	if token == "" {
		return fail(2, "no token: set REACTORCIDE_API_TOKEN; "+
			"`reactorcide serve` keeps the first one in the file admin-token of its data directory.")
	}
	baseURL := os.Getenv("REACTORCIDE_API_URL")
	if baseURL == "" {
		// No default: whoever happened to listen there would get the token.
		return fail(2, "no service: set REACTORCIDE_API_URL to where it is, as http://127.0.0.1:8080.")
	}
	client, err := NewClient(baseURL, token, 10*time.Second)
	if err != nil {
		return fail(2, "%v.", err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	tour := &tour{client: client, options: options}
	allFine, err := tour.run(ctx)
	switch {
	case ctx.Err() != nil:
		return fail(130, "interrupted.")
	case err != nil:
		exitCode, advice := failure(err)
		return fail(exitCode, "%v; %s.", err, advice)
	case !allFine:
		return 1
	}
	return 0
}

// failure returns, for an error, the exit code and what to do about it.
func failure(err error) (exitCode int, advice string) {
	switch {
	case is[*NetworkError](err):
		return 3, "start it with `reactorcide serve`, or correct REACTORCIDE_API_URL"
	case is[*AuthenticationError](err):
		return 4, "set REACTORCIDE_API_TOKEN to a valid token; `reactorcide token create` makes one"
	case is[*InvalidRequestError](err):
		return 5, "correct what it names and try again"
	case is[*WaitTimeoutError](err):
		return 6, "give it longer with --timeout, or see whether a worker is free"
	default:
		return 7, "the log of the service says more"
	}
}

func is[E error](err error) bool {
	var target E
	return errors.As(err, &target)
}

func fail(exitCode int, format string, args ...any) int {
	fmt.Fprintf(os.Stderr, "api_client: "+format+"\n", args...)
	return exitCode
}

func parseOptions() (options, error) {
	var o options
	flag.StringVar(&o.source, "source", "",
		"copy the directory `PATH`, as the service sees it: below one of its source roots (default: none)")
	flag.StringVar(&o.gitURL, "git-url", "", "create a job from the repository at this `URL`, too")
	flag.StringVar(&o.gitRef, "git-ref", "", "branch, tag or commit (`REF`) of it (default: its HEAD)")
	flag.StringVar(&o.image, "image", "", "container `IMAGE` of the jobs (default: the service's)")
	command := flag.String("command", "",
		"`SCRIPT` that the jobs run (default: sh ci.sh if there is one, else a greeting)")
	seconds := flag.Float64("timeout", 300, "how many `SECONDS` to wait for each job")
	flag.BoolVar(&o.keep, "keep", false, "do not delete the jobs at the end")
	flag.Usage = func() {
		out := flag.CommandLine.Output()
		fmt.Fprint(out, "A tour of the Reactorcide API: creates jobs, follows, cancels, lists and deletes them.\n\n")
		flag.PrintDefaults()
		fmt.Fprint(out, epilog)
	}
	flag.Parse()

	o.command = *command
	if o.command == "" {
		o.command = buildCommand // as its default, the usage text would show it in full
	}
	o.timeout = time.Duration(*seconds * float64(time.Second))
	switch {
	case flag.NArg() > 0:
		return o, fmt.Errorf("unrecognized arguments: %s", strings.Join(flag.Args(), " "))
	case o.gitRef != "" && o.gitURL == "":
		return o, errors.New("--git-ref needs --git-url")
	case o.timeout <= 0:
		return o, fmt.Errorf("--timeout must be a number above 0, not %g", *seconds)
	}
	return o, nil
}

// tour is what the program does, step by step.
type tour struct {
	client  *Client
	options options
	created []Job
}

// run reports whether all jobs ended as they should. The jobs are deleted after an error, too.
func (t *tour) run(ctx context.Context) (allFine bool, err error) {
	defer func() {
		// Not with ctx: an interrupt ends the tour, not the tidying up. The first error is the one to report.
		if failed := t.delete(context.Background()); err == nil {
			err = failed
		}
	}()
	if err := t.showHealth(ctx); err != nil {
		return false, err
	}
	built, err := t.build(ctx)
	if err != nil {
		return false, err
	}
	cancelled, err := t.cancel(ctx)
	if err != nil {
		return false, err
	}
	return built && cancelled, t.showLatest(ctx)
}

func (t *tour) showHealth(ctx context.Context) error {
	health, err := t.client.Health(ctx)
	if err != nil {
		return err
	}
	known := "not recognised"
	if health.Verification.Verified {
		known = "recognised"
	}
	fmt.Printf("Service: %s, version %s, token %s\n", health.Status, health.Version, known)
	return nil
}

// build creates the jobs, then follows each to its end.
func (t *tour) build(ctx context.Context) (allFine bool, err error) {
	definitions := []JobDefinition{
		{Name: "example-copy", JobCommand: t.options.command, SourceType: "copy", SourcePath: t.options.source},
	}
	if t.options.gitURL != "" {
		definitions = append(definitions, JobDefinition{
			Name: "example-git", JobCommand: t.options.command, SourceType: "git",
			GitURL: t.options.gitURL, GitRef: t.options.gitRef,
		})
	}
	var jobs []Job
	for _, definition := range definitions {
		job, err := t.create(ctx, definition)
		if err != nil {
			return false, err
		}
		jobs = append(jobs, job)
	}
	allFine = true
	for _, job := range jobs {
		fine, err := t.follow(ctx, job.JobID)
		if err != nil {
			return false, err
		}
		allFine = allFine && fine
	}
	return allFine, nil
}

func (t *tour) follow(ctx context.Context, jobID string) (fine bool, err error) {
	started := time.Now()
	job, err := t.client.WatchJob(ctx, jobID, t.options.timeout, func(job Job) bool {
		fmt.Printf("  %6.1f s  %s  %s\n", time.Since(started).Seconds(), job.Name, outcome(job))
		return true
	})
	if err != nil {
		return false, err
	}
	log, err := t.client.Log(ctx, jobID, 0)
	if err != nil {
		return false, err
	}
	fmt.Printf("Log of %s:\n%s\n", job.Name, strings.TrimRight(log, "\n"))
	if err := t.showArtifacts(ctx, job); err != nil {
		return false, err
	}
	return endedAs(Completed, job), nil
}

func (t *tour) showArtifacts(ctx context.Context, job Job) error {
	artifacts, err := t.client.ListArtifacts(ctx, job.JobID)
	if err != nil {
		return err
	}
	fmt.Printf("Artifacts of %s:\n", job.Name)
	for _, artifact := range artifacts {
		content, err := t.client.ReadArtifact(ctx, job.JobID, artifact.Path)
		if err != nil {
			return err
		}
		hash := sha256.New()
		_, err = io.Copy(hash, content)
		content.Close()
		if err != nil {
			return err
		}
		verdict := "DAMAGED"
		if hex.EncodeToString(hash.Sum(nil)) == artifact.SHA256 {
			verdict = "intact"
		}
		fmt.Printf("  %s  %d bytes, %s\n", artifact.Path, artifact.Size, verdict)
	}
	return nil
}

// cancel creates a job that would run for long, follows its log live, and cancels it.
func (t *tour) cancel(ctx context.Context) (fine bool, err error) {
	job, err := t.create(ctx, JobDefinition{
		Name: "example-cancel", JobCommand: endlessCommand, SourceType: "copy",
	})
	if err != nil {
		return false, err
	}
	job, err = t.client.WatchJob(ctx, job.JobID, t.options.timeout, func(job Job) bool {
		return job.Status != Running
	})
	if err != nil {
		return false, err
	}
	if err := t.followUntilCancelled(ctx, job); err != nil {
		return false, err
	}
	job, err = t.client.GetJob(ctx, job.JobID, 0)
	if err != nil {
		return false, err
	}
	fmt.Printf("  %s  %s\n", job.Name, outcome(job))
	return endedAs(Cancelled, job), nil
}

func (t *tour) followUntilCancelled(ctx context.Context, job Job) error {
	ctx, cancel := context.WithTimeout(ctx, t.options.timeout)
	defer cancel()
	log, err := t.client.FollowLog(ctx, job.JobID)
	if err != nil {
		return err
	}
	defer log.Close()
	fmt.Printf("Live log of %s:\n", job.Name)
	for chunk := make([]byte, 4096); ; {
		n, err := log.Read(chunk)
		if n > 0 {
			os.Stdout.Write(chunk[:n])
			// It has shown that it runs. What it prints while it stops cancels it again: that is harmless.
			if _, err := t.client.CancelJob(ctx, job.JobID); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (t *tour) showLatest(ctx context.Context) error {
	page, err := t.client.ListJobs(ctx, JobFilter{}, 5, "")
	if err != nil {
		return err
	}
	fmt.Printf("Latest %d of %d jobs:\n", len(page.Jobs), page.Total)
	for _, job := range page.Jobs {
		created := job.CreatedAt.Format("2006-01-02T15:04:05.000Z07:00")
		fmt.Printf("  %s  %s  %-9s  %s\n", job.JobID, created, job.Status, job.Name)
	}
	return nil
}

func (t *tour) create(ctx context.Context, definition JobDefinition) (Job, error) {
	definition.RunnerImage = t.options.image
	job, err := t.client.CreateJob(ctx, definition)
	if err != nil {
		return Job{}, err
	}
	t.created = append(t.created, job)
	fmt.Printf("Created %s: %s\n", job.Name, job.JobID)
	return job, nil
}

func (t *tour) delete(ctx context.Context) error {
	if t.options.keep {
		return nil
	}
	for _, job := range t.created {
		if err := t.client.DeleteJob(ctx, job.JobID); err != nil {
			return err
		}
		fmt.Printf("Deleted %s: %s\n", job.Name, job.JobID)
	}
	return nil
}

func outcome(job Job) string {
	switch {
	case job.Error != "":
		return fmt.Sprintf("%s: %s", job.Status, strings.TrimRight(job.Error, "."))
	case job.ExitCode != nil:
		return fmt.Sprintf("%s, exit code %d", job.Status, *job.ExitCode)
	default:
		return string(job.Status)
	}
}

func endedAs(status Status, job Job) bool {
	if job.Status != status {
		fail(1, "%s %s; its log above says more.", job.Name, outcome(job))
	}
	return job.Status == status
}
