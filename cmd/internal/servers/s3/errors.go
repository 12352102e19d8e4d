package s3

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
	"flatimg/cmd/internal/servers/transfer"
	"flatimg/cmd/internal/servers/web"
)

// failure is an answer of a server that is not the one that was hoped for
// (Amazon S3 API Reference, "Error responses").
type failure struct {
	code   string
	text   string
	region string // the bucket's, where the server tells it
	status int
}

func (e *failure) Error() string {
	if e.text == "" || e.text == e.code {
		return e.code
	}
	return e.code + ": " + strings.TrimSuffix(e.text, ".")
}

// toFailure tells what may pass from what does not in an error of the client.
func toFailure(err error) error {
	if err == nil {
		return nil
	}
	if r, ok := errors.AsType[minio.ErrorResponse](err); ok {
		return answer(r)
	}
	if u, ok := errors.AsType[*url.Error](err); ok {
		// Its text is the whole URL, and what is wrong.
		err = u.Err
		if strings.HasPrefix(err.Error(), "Connection closed by foreign host") {
			return transfer.Passing(errors.New("the connection was closed"))
		}
	}
	switch {
	case errors.Is(err, context.Canceled), transfer.Is[*tls.CertificateVerificationError](err), isPlainHTTP(err), transfer.IsLasting(err):
		return transfer.Lasting(err)
	case transfer.Is[*xml.SyntaxError](err):
		return transfer.Passing(fmt.Errorf("an answer that is cut off: %w", err))
	}
	return transfer.Passing(err)
}

// answer is [toFailure] for an answer.
func answer(r minio.ErrorResponse) error {
	e := &failure{code: web.OneLine("", r.Code), text: web.OneLine("", r.Message), region: web.OneLine("", r.Region), status: r.StatusCode}
	switch e.code {
	case "SlowDown", "InternalError", "RequestTimeout", "ServiceUnavailable", "OperationAborted",
		"IncompleteBody", "BadDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch":
		// The last ones: what arrived is not what was signed.
		return transfer.RetryLater(e, 0)
	}
	switch e.status {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return transfer.RetryLater(e, 0)
	}
	return transfer.Lasting(e)
}

// hasCode says whether err is an answer with one of these codes.
func hasCode(err error, codes ...string) bool {
	e, ok := errors.AsType[*failure](err)
	return ok && slices.Contains(codes, e.code)
}

// hasStatus says whether err is an answer with that HTTP status.
func hasStatus(err error, status int) bool {
	e, ok := errors.AsType[*failure](err)
	return ok && e.status == status
}

// fail says of which object and of what an error is, and what helps. What is
// not the server's fault keeps its exit code.
func fail(where, what string, err error) error {
	if err == nil || transfer.Is[*cli.Error](err) || errors.Is(err, context.Canceled) {
		return err
	}
	e := &cli.Error{Err: fmt.Errorf("%s: %s: %w", where, what, err), Code: cli.ExitServer}
	switch f, ok := errors.AsType[*failure](err); {
	case ok:
		e.Hint = hint(f)
		if f.status == http.StatusInsufficientStorage || slices.Contains([]string{"XMinioStorageFull", "QuotaExceeded"}, f.code) {
			e.Hint, e.Code = "free space on the server", cli.ExitNoSpace
		}
	case transfer.Is[*tls.CertificateVerificationError](err):
		e.Hint = "--cacert FILE names the certificates to trust"
	case isPlainHTTP(err):
		e.Hint = "the endpoint is http://, not https://"
	case transfer.IsPassing(err):
		e.Hint = "AWS_ENDPOINT_URL or ?endpoint=URL names the server"
	case transfer.IsLasting(err):
		return e.Err
	}
	return e
}

// isPlainHTTP says whether a server without TLS was asked for it.
func isPlainHTTP(err error) bool {
	return strings.Contains(err.Error(), "server gave HTTP response to HTTPS client")
}

// hint says what the user can do about an answer.
func hint(e *failure) string {
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
