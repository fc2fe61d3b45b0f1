// Package webhook receives OpenIM's callbacks: it tells from an HTTP request which OpenIMServer it is for, checks the
// token, decodes the body (package openim), stamps the change, makes it durable (an [Inbox]), and only then replies.
//
// In Kubernetes the word webhook mostly means admission; this one has nothing to do with it. OpenIM calls its callbacks
// webhooks as well (webhooks.yml), which is where the name comes from.
//
// OpenIM sends each callback once, with two workers and a queue of 100, so a slow answer costs its users time and a
// failed one loses the change. Whoever can reach the listener may send anything, so nothing that came with a request
// appears in a log, a metric label or an error message but the name of a verified OpenIMServer and the derived, safe name of
// a group.
package webhook
