package servers

import (
	"context"
	"crypto/tls"
	"encoding/xml"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/minio/minio-go/v7"

	"flatimg/cmd/internal/cli"
)

// s3Failure is an answer of a server that is not the one that was hoped for
// (Amazon S3 API Reference, "Error responses").
type s3Failure struct {
	code   string
	text   string
	region string // the bucket's, where the server tells it
	status int
}

func (e *s3Failure) Error() string {
	if e.text == "" || e.text == e.code {
		return e.code
	}
	return e.code + ": " + strings.TrimSuffix(e.text, ".")
}

// s3Error tells what may pass from what does not in an error of the client.
func s3Error(err error) error {
	if err == nil {
		return nil
	}
	if r, ok := errors.AsType[minio.ErrorResponse](err); ok {
		return s3Answer(r)
	}
	if u, ok := errors.AsType[*url.Error](err); ok {
		// Its text is the whole URL, and what is wrong.
		err = u.Err
		if strings.HasPrefix(err.Error(), "Connection closed by foreign host") {
			return passing{errors.New("the connection was closed")}
		}
	}
	switch {
	case errors.Is(err, context.Canceled), is[*tls.CertificateVerificationError](err), isPlainHTTP(err), is[lasting](err):
		return lasting{err}
	case is[*xml.SyntaxError](err):
		return passing{fmt.Errorf("an answer that is cut off: %w", err)}
	}
	return passing{err}
}

// s3Answer is [s3Error] for an answer.
func s3Answer(r minio.ErrorResponse) error {
	e := &s3Failure{code: oneLine("", r.Code), text: oneLine("", r.Message), region: oneLine("", r.Region), status: r.StatusCode}
	switch e.code {
	case "SlowDown", "InternalError", "RequestTimeout", "ServiceUnavailable", "OperationAborted",
		"IncompleteBody", "BadDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch":
		// The last ones: what arrived is not what was signed.
		return &retryLater{e, 0}
	}
	switch e.status {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return &retryLater{e, 0}
	}
	return lasting{e}
}

// hasS3Code says whether err is an answer with one of these codes.
func hasS3Code(err error, codes ...string) bool {
	e, ok := errors.AsType[*s3Failure](err)
	return ok && slices.Contains(codes, e.code)
}

// hasS3Status says whether err is an answer with that HTTP status.
func hasS3Status(err error, status int) bool {
	e, ok := errors.AsType[*s3Failure](err)
	return ok && e.status == status
}

// s3Fail says of which object and of what an error is, and what helps. What is
// not the server's fault keeps its exit code.
func s3Fail(where, what string, err error) error {
	if err == nil || is[*cli.Error](err) || errors.Is(err, context.Canceled) {
		return err
	}
	e := &cli.Error{Err: fmt.Errorf("%s: %s: %w", where, what, err), Code: cli.ExitServer}
	switch f, ok := errors.AsType[*s3Failure](err); {
	case ok:
		e.Hint = s3Hint(f)
		if f.status == http.StatusInsufficientStorage || slices.Contains([]string{"XMinioStorageFull", "QuotaExceeded"}, f.code) {
			e.Hint, e.Code = "free space on the server", cli.ExitNoSpace
		}
	case is[*tls.CertificateVerificationError](err):
		e.Hint = "--cacert FILE names the certificates to trust"
	case isPlainHTTP(err):
		e.Hint = "the endpoint is http://, not https://"
	case is[passing](err):
		e.Hint = "AWS_ENDPOINT_URL or ?endpoint=URL names the server"
	case is[lasting](err):
		return e.Err
	}
	return e
}

// isPlainHTTP says whether a server without TLS was asked for it.
func isPlainHTTP(err error) bool {
	return strings.Contains(err.Error(), "server gave HTTP response to HTTPS client")
}

// s3Hint says what the user can do about an answer.
func s3Hint(e *s3Failure) string {
	switch e.code {
	case "NoSuchBucket":
		return "make the bucket first, or name another endpoint with AWS_ENDPOINT_URL"
	case "NoSuchKey", "NoSuchVersion":
		return "list what is there with: aws s3 ls"
	case "AccessDenied":
		return "the keys need s3:GetObject, s3:PutObject, s3:ListBucket, s3:AbortMultipartUpload and s3:ListMultipartUploadParts for it"
	case "InvalidAccessKeyId", "InvalidTokenId", "InvalidToken", "XAdminUserNotFound":
		return "the server does not know the key of AWS_ACCESS_KEY_ID, or of the profile; AWS_ENDPOINT_URL names the server that does"
	case "SignatureDoesNotMatch":
		return "AWS_SECRET_ACCESS_KEY, or that of the profile, is not the one of the key; some servers also want their own AWS_REGION"
	case "RequestTimeTooSkewed":
		return "set this machine's clock: it differs by more than 15 minutes from the server's"
	case "ExpiredToken", "TokenRefreshRequired":
		return "get new keys: those of AWS_SESSION_TOKEN, or of the profile, have expired"
	case "PermanentRedirect", "AuthorizationHeaderMalformed", "InvalidRegion", "IllegalLocationConstraintException":
		if e.region != "" {
			return "set AWS_REGION=" + e.region
		}
		return "set AWS_REGION to the bucket's region"
	case "XMinioStorageFull", "QuotaExceeded":
		return "free space on the server"
	}
	return ""
}
