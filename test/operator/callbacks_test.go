package operator_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/util/validation"

	openimv1 "github.com/groupinfo-operator/groupinfo-operator/api/v1alpha1"
)

// documented is the group of OpenIM's documentation.
func documented(ex string) openimv1.GroupInfoSpec {
	return openimv1.GroupInfoSpec{
		ServerName:        "demo",
		GroupID:           "G002",
		GroupName:         new("NewGroupName"),
		Notification:      new("Updated group notification"),
		Introduction:      new("Updated group introduction"),
		FaceURL:           new("http://example.com/new/path/to/face/image.png"),
		Ex:                new(ex),
		NeedVerification:  new(int32(0)),
		LookMemberInfo:    new(int32(1)),
		ApplyMemberFriend: new(int32(0)),
	}
}

var _ = Describe("A callback", func() {
	const ex = "Updated extra data"

	DescribeTable("becomes the GroupInfo that OpenIM's documentation describes, in every dialect",
		func(ctx SpecContext, rest, body string) {
			o := newOpenIM(ctx)
			if strings.HasSuffix(body, ".json") {
				body = string(testdata(body))
			}
			r := o.post(ctx, receivers[0], o.path(rest), []byte(body))
			Expect(r.status).To(Equal(200), "%s", *r.ErrMsg)
			Expect(cmp.Diff(documented(ex), o.group(ctx, "G002").Spec)).To(BeEmpty())
		},
		Entry("as servers send it", "/"+setGroupInfoEx, "set-ex.server.json"),
		Entry("documented, flat with wrappers", "/"+setGroupInfoEx, "set-ex.documented-flat-wrapped.json"),
		Entry("documented, nested, path form", "/callbackAfterSetGroupInfoEXCommand", "set-ex.documented-nested.json"),
		Entry("documented, nested, query form", "?command=callbackAfterSetGroupInfoEXCommand&contenttype=json", "set-ex.documented-nested.json"),
		Entry("path and query form at once", "/"+setGroupInfoEx+"?contenttype=json", "set-ex.server.json"),
		Entry("the older name with EX at the end", "/callbackAfterSetGroupInfoCommandEX", "set-ex.server.json"),
		Entry("a URL that ends in a slash", "//"+setGroupInfoEx, "set-ex.server.json"),
		Entry("the command in another case", "/CALLBACKAFTERSETGROUPINFOEXCOMMAND", "set-ex.server.json"),
		Entry("the command in the body alone", "", "set-ex.server.json"),
		Entry("the command in the URL alone", "/"+setGroupInfoEx, `{"groupID":"G002","groupName":"NewGroupName","notification":"Updated group notification","introduction":"Updated group introduction","faceURL":"http://example.com/new/path/to/face/image.png","ex":"Updated extra data","needVerification":0,"lookMemberInfo":1,"applyMemberFriend":0}`),
		Entry("zero values left out of their wrappers", "/"+setGroupInfoEx, `{"groupID":"G002","groupName":{"value":"NewGroupName"},"notification":{"value":"Updated group notification"},"introduction":"Updated group introduction","faceURL":{"value":"http://example.com/new/path/to/face/image.png"},"ex":{"value":"Updated extra data"},"needVerification":{},"lookMemberInfo":{"value":1},"applyMemberFriend":{}}`),
		Entry("with members that we do not know", "/"+setGroupInfoEx, `{"displayIsRead":{"value":1},"groupID":"G002","groupName":"NewGroupName","notification":"Updated group notification","introduction":"Updated group introduction","faceURL":"http://example.com/new/path/to/face/image.png","ex":"Updated extra data","needVerification":0,"lookMemberInfo":1,"applyMemberFriend":0}`),
	)

	It("of set-group-info-ex changes what it tells, clears what is empty, and leaves alone what is null or absent", func(ctx SpecContext) {
		o := newOpenIM(ctx)
		o.tell(ctx, setGroupInfoEx, testdata("set-ex.server.json"))
		o.tell(ctx, setGroupInfoEx, testdata("set-ex.server-partial.json"))
		want := documented(ex)
		want.Notification, want.NeedVerification = new(""), new(int32(2))
		Expect(cmp.Diff(want, o.group(ctx, "G002").Spec)).To(BeEmpty())

		o.tell(ctx, setGroupInfoEx, []byte(`{"groupID":"G002","ex":""}`))
		want.Ex = new("")
		Expect(cmp.Diff(want, o.group(ctx, "G002").Spec)).To(BeEmpty())
	})

	It("of set-group-info leaves alone what is empty, except ex", func(ctx SpecContext) {
		o := newOpenIM(ctx)
		o.tell(ctx, setGroupInfoEx, testdata("set-ex.server.json"))
		o.tell(ctx, setGroupInfo, testdata("set.server-partial.json"))
		want := documented(ex)
		want.GroupName = new("only name")
		Expect(cmp.Diff(want, o.group(ctx, "G002").Spec)).To(BeEmpty())

		o.tell(ctx, setGroupInfo, []byte(`{"groupID":"G002","groupName":"","ex":""}`))
		want.Ex = new("")
		Expect(cmp.Diff(want, o.group(ctx, "G002").Spec)).To(BeEmpty())
	})

	It("creates a partial object when it is the first to tell of a group", func(ctx SpecContext) {
		o := newOpenIM(ctx)
		o.tell(ctx, setGroupInfoEx, testdata("set-ex.server-partial.json"))
		Expect(cmp.Diff(openimv1.GroupInfoSpec{
			ServerName: "demo", GroupID: "G002", Notification: new(""), NeedVerification: new(int32(2)),
		}, o.group(ctx, "G002").Spec)).To(BeEmpty())
	})

	It("appears in the history, newest first", func(ctx SpecContext) {
		o := newOpenIM(ctx)
		o.tell(ctx, setGroupInfoEx, []byte(`{"groupID":"G002","operationID":"first","groupName":"A"}`))
		o.tell(ctx, setGroupInfo, []byte(`{"groupID":"G002","operationID":"second","introduction":"B","needVerification":1}`))
		history := o.group(ctx, "G002").History
		Expect(history).To(HaveLen(2))
		Expect(history[0]).To(And(HaveField("Command", setGroupInfo), HaveField("OperationID", "second"), HaveField("Fields", []string{"introduction", "needVerification"})))
		Expect(history[1]).To(And(HaveField("Command", setGroupInfoEx), HaveField("OperationID", "first"), HaveField("Fields", []string{"groupName"})))
	})

	It("follows a group from its creation, over a late creation, to its dismissal", func(ctx SpecContext) {
		o := newOpenIM(ctx)
		created := `{"callbackCommand":"callbackAfterCreateGroupCommand","groupID":"ag1","groupName":"Group One","notification":"note","introduction":"intro","faceURL":"http://x/y.png","ownerUserID":"au1","createTime":1795428377127,"memberCount":5,"ex":"{\"k\":\"v\"}","status":0,"creatorUserID":"","groupType":2,"needVerification":0,"lookMemberInfo":1,"applyMemberFriend":1,"notificationUpdateTime":0,"notificationUserID":"","initMemberList":[{"userID":"au1","roleLevel":100},{"userID":"imAdmin","roleLevel":20}]}`
		o.tell(ctx, setGroupInfoEx, []byte(`{"groupID":"ag1","groupName":"Renamed"}`))
		o.tell(ctx, "callbackAfterCreateGroupCommand", []byte(created))
		group := o.group(ctx, "ag1")
		Expect(group.Spec).To(And(
			HaveField("GroupName", HaveValue(Equal("Renamed"))), HaveField("Introduction", HaveValue(Equal("intro"))),
			HaveField("OwnerUserID", HaveValue(Equal("au1"))), HaveField("CreateTime", HaveValue(BeEquivalentTo(1795428377127))),
			HaveField("GroupType", HaveValue(BeEquivalentTo(2))), HaveField("GroupStatus", HaveValue(BeEquivalentTo(0))),
		))
		o.tell(ctx, "callbackTransferGroupOwnerAfter", []byte(`{"callbackCommand":"callbackAfterTransferGroupOwnerCommand","groupID":"ag1","oldOwnerUserID":"au1","newOwnerUserID":"au2"}`))
		for _, members := range []string{`["au2","au1"]`, `[]`} {
			o.tell(ctx, "callbackAfterDisMissGroupCommand", formatted(`{"callbackCommand":"callbackAfterDisMissGroupCommand","groupID":"ag1","ownerID":"au2","groupType":"\u0002","membersID":%s}`, members))
		}
		o.tell(ctx, "callbackAfterCreateGroupCommand", []byte(created))
		group = o.group(ctx, "ag1")
		Expect(group.Spec.GroupStatus).To(HaveValue(BeEquivalentTo(2)), "a dismissal is final")
		Expect(group.Spec.OwnerUserID).To(HaveValue(Equal("au2")))
		Expect(group.Labels).To(And(HaveKeyWithValue(openimv1.LabelGroupStatus, "2"), HaveKeyWithValue(openimv1.LabelGroupType, "2")))
	})

	It("gives every group ID a valid name of its own, and lets none into a label or a ConfigMap's name as it is", func(ctx SpecContext) {
		o := newOpenIM(ctx)
		o.mirror(ctx, "mirror", openimv1.ConfigMapFormatKeys)
		groupIDs := []string{
			"G002", "g002", "群组", "../../etc", strings.Repeat("a", 300), "a\x00b", "A\x00b", "a b", "😀", "-", ".", "$(id)",
			strings.Repeat("群", 341),
			o.groupKey("G002").Name, // another ID's derived name
		}
		names := map[string]string{}
		for _, groupID := range groupIDs {
			body, err := json.Marshal(map[string]string{"groupID": groupID, "groupName": groupID})
			Expect(err).NotTo(HaveOccurred())
			o.tell(ctx, setGroupInfoEx, body)
			group := o.group(ctx, groupID)
			Expect(group.Spec.GroupID).To(Equal(groupID))
			Expect(group.Spec.GroupName).To(HaveValue(Equal(groupID)))
			Expect(validation.IsDNS1123Label(group.Name)).To(BeEmpty())
			for _, value := range group.Labels {
				Expect(validation.IsValidLabelValue(value)).To(BeEmpty())
			}
			Expect(names).NotTo(HaveKey(group.Name), "%q has the name of %q", groupID, names[group.Name])
			names[group.Name] = groupID
		}
		for name, groupID := range names {
			Eventually(ctx, func() (map[string]string, error) { return configMapData(ctx, o.namespace, "mirror."+name) }).
				Should(HaveKeyWithValue("groupID", groupID))
		}
		// kubectl finds a group by its ID, whatever it is.
		Expect(kubectl(ctx, "get", "groupinfo", "-n", o.namespace, "-o", "name", "--field-selector", "spec.groupID=../../etc")).
			To(Equal("groupinfo.openim.io/" + o.groupKey("../../etc").Name + "\n"))
	})

	It("gives the same object, whichever of three replicas each of many comes through", func(ctx SpecContext) {
		o := newOpenIM(ctx)
		const rounds, perRound = 4, 12
		for round := range rounds {
			groupID := fmt.Sprintf("round-%d", round)
			var senders sync.WaitGroup
			for i := range perRound {
				senders.Go(func() {
					defer GinkgoRecover()
					// Each tells of the name, and of one other field.
					other := []string{"notification", "introduction", "ex"}[i%3]
					body := formatted(`{"groupID":%q,"operationID":"%d","groupName":"name %d","%s":"text %d"}`, groupID, i, i, other, i)
					r := o.post(ctx, receivers[i%len(receivers)], o.path("/"+setGroupInfoEx), body)
					Expect(r.status).To(Equal(200), "%s", *r.ErrMsg)
				})
			}
			senders.Wait()
			group := o.group(ctx, groupID)
			Expect(group.History).To(HaveLen(perRound), "every acknowledged change is known")
			Expect(slices.IsSortedFunc(group.History, func(a, b openimv1.HistoryEntry) int { return strings.Compare(b.Stamp, a.Stamp) })).To(BeTrue())
			// The history has all stamps, so it says what the merge must have given.
			for field, value := range map[string]*string{
				"groupName": group.Spec.GroupName, "notification": group.Spec.Notification, "introduction": group.Spec.Introduction, "ex": group.Spec.Ex,
			} {
				newest := slices.IndexFunc(group.History, func(e openimv1.HistoryEntry) bool { return slices.Contains(e.Fields, field) })
				Expect(newest).To(BeNumerically(">=", 0))
				text := map[bool]string{true: "name ", false: "text "}[field == "groupName"]
				Expect(value).To(HaveValue(Equal(text+group.History[newest].OperationID)), "%s of %s", field, groupID)
			}
		}
	})

	It("is counted by command and outcome, under no label that a sender chooses", func(ctx SpecContext) {
		o := newOpenIM(ctx)
		o.tell(ctx, setGroupInfoEx, testdata("set-ex.server.json"))
		o.post(ctx, receivers[0], o.path("/callbackWhoKnowsWhat"), []byte(`{}`))
		text := scrape(ctx, receivers[0])
		Expect(text).To(MatchRegexp(`groupinfo_operator_callbacks_total\{command="callbackAfterSetGroupInfoExCommand",outcome="accepted"\} [1-9]`))
		Expect(text).To(MatchRegexp(`groupinfo_operator_callbacks_total\{command="none",outcome="command_unknown"\} [1-9]`))
		Expect(text).NotTo(ContainSubstring("WhoKnowsWhat"))
		Expect(text).NotTo(ContainSubstring(o.namespace))
	})
})

var _ = AfterEach(func() {
	// Whatever a spec sent, no process logged a token.
	for _, token := range tokens {
		for _, p := range append(slices.Clone(receivers), controller) {
			Expect(p.log()).NotTo(ContainSubstring(token))
		}
	}
})
