package convert

// SpecError says that a [Spec] is not possible, in itself or for a disk.
type SpecError struct {
	Err error
	// Help is what the user can do about it.
	Help string
}

func (e *SpecError) Error() string { return e.Err.Error() }
func (e *SpecError) Unwrap() error { return e.Err }

// Hint says what the user can do about it.
func (e *SpecError) Hint() string { return e.Help }

// formatsHint is that of an error in the name or an option of a format.
const formatsHint = "flatimg formats lists target formats with their options"
